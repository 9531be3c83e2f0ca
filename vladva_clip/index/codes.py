"""Quantized features of an index, which read as float32 rows of length 1."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vladva_clip.compact import dequantize


@dataclass(frozen=True, eq=False)
class Codes:
    """An array `(N, D)` that is decoded where it is read, so that it takes no more memory than its codes.

    stored: `(N, D)` int8, or `(N, ceil(D / 8))` uint8, a bit for each dimension. dimensions: D. ranges: `(2, D)`
    float32 for int8, else None.

    Raises:
        ValueError: types or shapes that don't belong together.
    """

    stored: np.ndarray
    dimensions: int
    ranges: np.ndarray | None = None

    def __post_init__(self) -> None:
        is_binary = self.ranges is None
        expected = np.uint8 if is_binary else np.int8
        width = -(-self.dimensions // 8) if is_binary else self.dimensions
        if self.stored.dtype != expected or self.stored.ndim != 2 or self.stored.shape[1] != width:
            found = f"{self.stored.dtype} {self.stored.shape}"
            raise ValueError(f"codes are {found}, expected {np.dtype(expected)} (rows, {width})")
        if not is_binary and (self.ranges.shape != (2, width) or not np.isfinite(self.ranges).all()):
            raise ValueError(f"ranges are {self.ranges.shape}, expected (2, {width}) finite numbers")

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return len(self.stored), self.dimensions

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    @property
    def dtype(self) -> np.dtype:
        """That of the rows as they read, float32."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return `(n, D)` float32, rows of length 1, for a slice or an array of row numbers."""
        codes = self.stored[rows]
        if self.ranges is None:
            features = np.unpackbits(codes, axis=1, count=self.dimensions).astype(np.float32) * 2 - 1
        else:
            features = dequantize(codes, self.ranges)
        with np.errstate(divide="ignore", invalid="ignore"):  # a row of length 0 is no feature: it reads as NaN
            return features / np.sqrt(np.einsum("nd,nd->n", features, features))[:, None]
