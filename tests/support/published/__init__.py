"""Published embedders: tiny repositories laid out as theirs, and how their authors compute a feature."""
