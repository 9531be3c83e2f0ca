"""How a directory becomes a model, and pictures and captions become features."""
