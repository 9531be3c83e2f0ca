"""Hostile and damaged directories, loaded through every entry point in processes of their own."""
