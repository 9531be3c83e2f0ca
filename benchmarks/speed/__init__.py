"""Speed and memory against plain transformers, open_clip and comparable projects."""
