"""What tells our result files from clip_benchmark's own: `vladva-benchmark run` writes it, the report reads it."""

OURS = "vladva"
"""The key that clip_benchmark's results lack; under it stands how the figures came about."""
FORMAT = 1
"""`format` under that key; another one is refused."""
TYPES = {
    **dict.fromkeys(("suite", "weights", "data", "hardware"), str),
    **dict.fromkeys(("training_free", "subset"), bool),
    **dict.fromkeys(("counts", "versions"), dict),
    **dict.fromkeys(("seconds", "images_per_second"), (int, float)),
    "base": (str, type(None)),
    "command": list,
    "images": int,
}
"""The entries under that key, and the types of their values."""
