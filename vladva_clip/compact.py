"""Features as they are stored: fewer dimensions, 8 bits or one bit for each."""

import numbers
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vladva_clip.interface import extras

INT8, BINARY = ("int8", "uint8"), ("binary", "ubinary")


def check_truncate_dim(truncate_dim: Any, width: int) -> int | None:
    """Return a number of leading dimensions as an int, None for all of them.

    Raises:
        ValueError: no whole number from 1 to the features' width.
    """
    if truncate_dim is None:
        return None
    whole = isinstance(truncate_dim, numbers.Integral) and not isinstance(truncate_dim, bool)
    if not whole or not 1 <= truncate_dim <= width:
        raise ValueError(f"truncate_dim is {truncate_dim!r:.60}, expected a whole number from 1 to {width}")
    return int(truncate_dim)


def truncate(features: torch.Tensor, truncate_dim: int) -> torch.Tensor:
    """Keep the leading dimensions of stored features and scale what is left to length 1 again.

    Args:
        features: `(N, D)` floats.
        truncate_dim: dimensions to keep.

    Returns:
        `(N, truncate_dim)` of the same dtype, equal to what `create_model(..., truncate_dim=...)` encodes.

    Raises:
        ValueError: another shape, no whole number from 1 to D.
    """
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or not features.is_floating_point():
        raise ValueError(f"truncate takes a tensor (N, D) of floats, found {_described(features)}")
    return F.normalize(features[:, : check_truncate_dim(truncate_dim, features.shape[1])], dim=-1)


def quantize(features: Any, precision: str, calibration: Any = None) -> np.ndarray:
    """Quantise features with sentence-transformers' `quantize_embeddings`.

    Args:
        features: `(N, D)` floats, a tensor or an array; normalise (and truncate) them first.
        precision: "int8" or "uint8", whose 256 steps divide the range that calibration has in each dimension; "binary"
            or "ubinary", the sign of each dimension, eight to a byte.
        calibration: int8 and uint8 need it: `(M, D)` floats like the ones to come, of images and of texts, M at least
            2. Everything that is compared must have the same. Its minimum and maximum, `(2, D)`, serve as well as
            itself, and are all that has to be kept.

    Returns:
        `(N, D)` of that integer type, or `(N, ceil(D / 8))` int8 ("binary") or uint8 ("ubinary").

    Raises:
        ValueError: an unknown precision, other shapes, what is not finite; int8 without a calibration, binary with one.
        ImportError: sentence-transformers is not installed.
    """
    if precision not in (*INT8, *BINARY):
        raise ValueError(f"precision is {precision!r:.60}, expected one of {', '.join((*INT8, *BINARY))}")
    if (precision in INT8) != (calibration is not None):
        raise ValueError(_about_calibration(precision))
    features = _array(features, "features")
    ranges = None if calibration is None else _ranges(calibration, features.shape[1])
    if ranges is not None:  # what lies outside takes the last step; not every release clips by itself
        features = np.clip(features, ranges[0], ranges[1])
    return _quantize_embeddings()(features, precision=precision, ranges=ranges)


def dequantize(codes: np.ndarray, calibration: Any) -> np.ndarray:
    """Return what int8 or uint8 codes stand for, the middle of each step.

    Int8 codes have a zero and a step of their own in each dimension, so that their products are not the features'.

    Args:
        codes: `(N, D)` from `quantize`.
        calibration: the one they were made with.

    Returns:
        `(N, D)` float32, not normalised.

    Raises:
        ValueError: other shapes or types.
    """
    if not isinstance(codes, np.ndarray) or codes.dtype not in (np.int8, np.uint8) or codes.ndim != 2:
        raise ValueError(f"dequantize takes an array (N, D) of int8 or uint8, found {_described(codes)}")
    low, high = _ranges(calibration, codes.shape[1])
    steps = codes.astype(np.float32) + (128 if codes.dtype == np.int8 else 0)
    return np.minimum(low + (steps + 0.5) * ((high - low) / 255), high)


def _about_calibration(precision: str) -> str:
    if precision in BINARY:
        return f"{precision} is the sign of each dimension and takes no calibration; leave it out"
    return (
        f"{precision} needs a calibration: features (M, D) like the ones to come. Without one each call would have "
        "ranges of its own, and queries could not be compared with a gallery"
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
        raise ValueError(f"the {name} hold NaN or infinity")
    return features.astype(np.float32, copy=False)


def _described(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} {tuple(shape)} {dtype}"


def _quantize_embeddings() -> Any:
    extras.require("sentence_transformers", purpose="quantize")
    from sentence_transformers import quantize_embeddings

    return quantize_embeddings
