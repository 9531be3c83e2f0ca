"""Zero-shot classifiers: open_clip's builder, for many more texts a second."""
