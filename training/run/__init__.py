"""A training run: its loop, checkpoints, evaluation and progress, from the first check to the last save."""
