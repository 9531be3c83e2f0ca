"""Bytes, a file or what a data set holds as an image -> a decoded RGB image, or a bad record."""

import io
from pathlib import Path

from PIL import Image

from vladva_clip.preprocess import ToRGB
from vladva_training.data.records import BadRecord

_to_rgb = ToRGB(0)  # as the model's own transform does it: 16-bit greys are scaled, alpha is dropped


def decode_image(image: bytes | bytearray | Image.Image, key: str) -> Image.Image:
    """Decode an image to its last byte, so that what is wrong with it shows here and not in the transform.

    Raises:
        BadRecord: "corrupt image" (a truncated one too), "image too large" (beyond PIL's limit, or out of memory).
    """
    try:
        opened = image if isinstance(image, Image.Image) else Image.open(io.BytesIO(image))
        return _to_rgb(opened)
    except (Image.DecompressionBombError, MemoryError) as error:
        raise BadRecord("image too large", key, str(error)) from error
    except Exception as error:  # PIL's decoders let anything out: OSError, SyntaxError, struct.error, IndexError, ...
        raise BadRecord("corrupt image", key, f"{type(error).__name__}: {error}") from error


def read_image(path: Path, key: str) -> Image.Image:
    """Read and decode an image file.

    Raises:
        BadRecord: "missing image" where there is no such file or it cannot be read; else as `decode_image`.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadRecord("missing image", key, f"{path}: {type(error).__name__}") from error
    return decode_image(data, key)
