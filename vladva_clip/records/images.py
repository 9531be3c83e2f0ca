"""Bytes, a file or a data set's image -> an upright RGB image, or a bad record."""

from pathlib import Path

from PIL import Image

from vladva_clip.encoder.preprocess import ToRGB
from vladva_clip.pictures.colors import ModeError
from vladva_clip.pictures.files import FormatError, TooLargeError, read_file, read_picture
from vladva_clip.records.records import BadRecord

_to_rgb = ToRGB(0)  # for PIL images opened by a user's own source: the model's conversion, not rotated


def decode_image(image: bytes | bytearray | Image.Image, key: str) -> Image.Image:
    """Decode an image completely, so that errors show here and not in the transform.

    Encoded bytes are rotated as their EXIF data says (see `pictures.read_picture`); a PIL image is not rotated.

    Raises:
        BadRecord: "corrupt image" (also if truncated), "image format" (unsupported formats such as EPS, and modes
            without colors: see `colors.to_rgb`), "image too large" (beyond PIL's limit, or out of memory).
    """
    try:
        return _to_rgb(image) if isinstance(image, Image.Image) else read_picture(image)
    except (FormatError, ModeError) as error:
        raise BadRecord("image format", key, str(error)) from error
    except (TooLargeError, Image.DecompressionBombError, MemoryError) as error:
        raise BadRecord("image too large", key, str(error)) from error
    except Exception as error:  # PIL's decoders may raise anything for an image that was opened elsewhere
        raise BadRecord("corrupt image", key, f"{type(error).__name__}: {error}") from error


def read_image(path: Path, key: str) -> Image.Image:
    """Read and decode an image file.

    Raises:
        BadRecord: "missing image" if the file doesn't exist or can't be read; otherwise as `decode_image`.
    """
    try:
        data = read_file(path)
    except TooLargeError as error:
        raise BadRecord("image too large", key, str(error)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadRecord("missing image", key, f"{str(path):.300}: {type(error).__name__}") from error
    return decode_image(data, key)
