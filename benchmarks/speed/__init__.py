"""Speed and memory, compared with plain transformers, open_clip and similar projects."""
