"""What is written of a model that anyone may have changed, and the proof that it would load as it is."""
