"""Rows of an index made by hand."""

import numpy as np

NAMES = [
    *("a.png", "", "with\nbreaks\r\n", "nul at the end\0\0", "caf\udce9.jpg"),
    *("a text", "猫 👩", 'a "quote" \\ and more'),
]
KINDS = ["image"] * 5 + ["text"] * 3


def unit_rows(count: int, width: int, seed: int = 0) -> np.ndarray:
    """`(count, width)` float32 of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
