"""Saving a model that anyone may have changed: what to write, and the proof that it would load as it is."""
