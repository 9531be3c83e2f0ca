"""Distinguishes our result files from clip_benchmark's: `vladva-benchmark run` writes the key, the report reads it."""

OURS = "vladva"
"""clip_benchmark's results lack this key. Under it stands how the figures were computed."""
FORMAT = 1
"""`format` under that key; other values are refused."""
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
