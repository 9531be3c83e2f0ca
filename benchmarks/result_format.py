"""What tells our result files from clip_benchmark's own: `vladva-benchmark run` writes it, the report reads it."""

OURS = "vladva"
"""The key that clip_benchmark's results lack; under it stands how the figures came about."""
FORMAT = 1
"""`format` under that key; another one is refused."""
