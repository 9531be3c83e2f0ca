"""Pairs to train on, single steps, and whole runs."""
