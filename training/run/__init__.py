"""A run in progress: its loop, checkpoints, evaluation and progress, from the first look to the last save."""
