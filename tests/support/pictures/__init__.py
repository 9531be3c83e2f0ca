"""Image files of every mode, and hostile ones."""
