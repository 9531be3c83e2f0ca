"""Smaller stored features: fewer dimensions, or 8 bits or one bit for each."""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vladva_clip.interface import extras

INT8, BINARY = ("int8", "uint8"), ("binary", "ubinary")


def check_truncate_dim(truncate_dim: Any, width: int) -> int | None:
    """Return a number of leading dimensions as an int; None means all of them.

    Raises:
        ValueError: not a whole number from 1 to the features' width.
    """
    if truncate_dim is None:
        return None
    whole = isinstance(truncate_dim, numbers.Integral) and not isinstance(truncate_dim, bool)
    if not whole or not 1 <= truncate_dim <= width:
        raise ValueError(f"truncate_dim is {truncate_dim!r:.60}, expected a whole number from 1 to {width}")
    return int(truncate_dim)


def untrained_width(truncate_dim: int | None, trained: Sequence[int]) -> str | None:
    """Return a warning for a width below all those that a model's authors trained features to be cut to; else None."""
    if truncate_dim is None or not trained or truncate_dim >= min(trained):
        return None
    return (
        f"truncate_dim={truncate_dim} is below the widths that its features were trained to be cut to ({trained[0]} up)"
    )


def truncate(features: torch.Tensor, truncate_dim: int) -> torch.Tensor:
    """Keep the leading dimensions of stored features and scale them to length 1 again.

    Args:
        features: `(N, D)` floats.
        truncate_dim: number of dimensions to keep.

    Returns:
        `(N, truncate_dim)` of the same dtype, equal to what `create_model(..., truncate_dim=...)` encodes.

    Raises:
        ValueError: another shape, or not a whole number from 1 to D.
    """
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or not features.is_floating_point():
        raise ValueError(f"truncate takes a tensor (N, D) of floats, found {_described(features)}")
    return F.normalize(features[:, : check_truncate_dim(truncate_dim, features.shape[1])], dim=-1)


def quantize(features: Any, precision: str, calibration: Any = None) -> np.ndarray:
    """Quantize features with sentence-transformers' `quantize_embeddings`.

    Args:
        features: `(N, D)` floats, a tensor or an array; normalize (and truncate) them first.
        precision: "int8" or "uint8" divides the calibration's range in each dimension into 256 steps; "binary" or
            "ubinary" keeps the sign of each dimension, eight to a byte.
        calibration: required for int8 and uint8: `(M, D)` floats, M at least 2, representative of the features to
            come, images and texts alike. Use the same one for everything that is compared. Only its minimum and
            maximum matter, so it is enough to keep those, as `(2, D)`.

    Returns:
        `(N, D)` of that integer type; or `(N, ceil(D / 8))` int8 ("binary") or uint8 ("ubinary").

    Raises:
        ValueError: an unknown precision, another shape, a value that is not finite, int8 without a calibration, or
            binary with one.
        ImportError: sentence-transformers is not installed.
    """
    if precision not in (*INT8, *BINARY):
        raise ValueError(f"precision is {precision!r:.60}, expected one of {', '.join((*INT8, *BINARY))}")
    if (precision in INT8) != (calibration is not None):
        raise ValueError(_about_calibration(precision))
    features = _array(features, "features")
    ranges = None if calibration is None else _ranges(calibration, features.shape[1])
    if ranges is not None:  # values outside get the last step; not every release clips them itself
        features = np.clip(features, ranges[0], ranges[1])
    return _quantize_embeddings()(features, precision=precision, ranges=ranges)


def dequantize(codes: np.ndarray, calibration: Any) -> np.ndarray:
    """Return the features that int8 or uint8 codes stand for: the middle of each step.

    Dequantize before computing dot products: each dimension of the codes has its own zero and step.

    Args:
        codes: `(N, D)` from `quantize`.
        calibration: the one that the codes were made with.

    Returns:
        `(N, D)` float32, not normalized.

    Raises:
        ValueError: another shape or type.
    """
    if not isinstance(codes, np.ndarray) or codes.dtype not in (np.int8, np.uint8) or codes.ndim != 2:
        raise ValueError(f"dequantize takes an array (N, D) of int8 or uint8, found {_described(codes)}")
    low, high = _ranges(calibration, codes.shape[1])
    steps = codes.astype(np.float32) + (128 if codes.dtype == np.int8 else 0)
    return np.minimum(low + (steps + 0.5) * ((high - low) / 255), high)


def _about_calibration(precision: str) -> str:
    if precision in BINARY:
        return f"{precision} keeps only signs and takes no calibration; leave it out"
    return (
        f"{precision} needs a calibration: features (M, D) like the ones to come. Without one, each call would use "
        "its own ranges, and queries could not be compared with a gallery"
    )


def _ranges(calibration: Any, width: int) -> np.ndarray:
    calibration = _array(calibration, "calibration")
    if calibration.shape[1] != width or len(calibration) < 2:
        raise ValueError(f"the calibration is {_described(calibration)}, expected at least 2 rows of width {width}")
    return np.stack([calibration.min(axis=0), calibration.max(axis=0)])


def _array(features: Any, name: str) -> np.ndarray:
    if isinstance(features, torch.Tensor) and features.is_floating_point():
        features = features.detach().cpu().float().numpy()
    if not isinstance(features, np.ndarray) or features.ndim != 2 or features.dtype.kind != "f":
        raise ValueError(f"the {name} must be (N, D) floats, found {_described(features)}")
    if not np.isfinite(features).all():
        raise ValueError(f"the {name} contain NaN or infinity")
    return features.astype(np.float32, copy=False)


def _described(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} {tuple(shape)} {dtype}"


def _quantize_embeddings() -> Any:
    extras.require("sentence_transformers", purpose="quantize")
    from sentence_transformers import quantize_embeddings

    return quantize_embeddings
