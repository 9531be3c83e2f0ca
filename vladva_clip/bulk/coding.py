"""How features are stored in an output: 32 bits for each dimension, 8, or one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from vladva_clip.bulk.parts import Part
from vladva_clip.compact import quantize
from vladva_clip.interface import extras

PRECISIONS = ("int8", "binary")


@dataclass(frozen=True)
class Coding:
    """Turns features into what is stored.

    precision: None for float32, "int8", or "binary". ranges: `(2, D)` float32, the smallest and the largest value of
    each dimension, for int8.
    """

    precision: str | None = None
    ranges: np.ndarray | None = None

    @property
    def dtype(self) -> str:
        """NumPy's type of what is stored."""
        return {None: "<f4", "int8": "|i1", "binary": "|u1"}[self.precision]

    def width(self, dimensions: int) -> int:
        """Return how many numbers are stored for that many dimensions."""
        return -(-dimensions // 8) if self.precision == "binary" else dimensions

    def __call__(self, features: torch.Tensor) -> np.ndarray:
        """Return `(N, width)` of `dtype` for `(N, D)` float32."""
        if self.precision is None or not len(features):
            return features.numpy().astype(self.dtype)[:, : self.width(features.shape[1])]
        if self.precision == "binary":
            return quantize(features, "ubinary")
        return quantize(features, "int8", self.ranges)


def coding_of(precision: str | None, parts: Callable[[], Iterable[Part]]) -> Coding:
    """Return the coding of a job's features; int8 reads all of them, to know their ranges.

    Args:
        precision: None, or one of `PRECISIONS`.
        parts: returns the parts that will be stored, from the first one on.

    Raises:
        ExtraError: sentence-transformers, which quantizes, is not installed.
    """
    if precision is not None:
        extras.require("sentence_transformers", purpose="--quantize")
    return Coding(precision, _ranges(parts()) if precision == "int8" else None)


def _ranges(parts: Iterable[Part]) -> np.ndarray:
    """The smallest and largest values of all rows with features."""
    ranges = None
    for part in parts:
        kept = part.features[[row.error is None for row in part.rows]]
        if len(kept):
            found = torch.stack([kept.amin(0), kept.amax(0)])
            ranges = found if ranges is None else _wider(ranges, found)
    return np.zeros((2, 0), np.float32) if ranges is None else ranges.numpy()  # nothing could be read


def _wider(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.minimum(a[0], b[0]), torch.maximum(a[1], b[1])])
