"""A PIL image of any mode -> RGB. All decisions about colors are made here; docs/api.md has the table."""

import numpy as np
from PIL import Image

# before 10.3, Pillow opened their 16-bit gray in the 32-bit mode "I", and still does for PPM
_DEEP_FORMATS = ("PNG", "PPM")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags: bits per sample; the second is 0 if 0 means white
_KEYED_MODES = ("1", "L", "P", "RGB")  # whose `info["transparency"]` PIL turns into alpha


class ModeError(ValueError):
    """A picture without pixels, or with values that can't be turned into colors."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture: 16-bit gray is scaled to 8 bits, transparency is composited on white, as in transformers 5.

    Args:
        image: an image of any mode; a lazily opened image is decoded.

    Returns:
        A new RGB image of the same size, without transparency. EXIF and ICC profiles are ignored.

    Raises:
        ModeError: mode F, values below 0 or above 65535 in mode I, no pixels, or a closed file.
        OSError: PIL can't decode the file.
    """
    stored = image.tile[0][3] if getattr(image, "tile", None) else None  # gone once the file is decoded
    _load(image)
    if image.mode == "F":
        raise ModeError(
            "the picture has floats (mode F) of unknown range; expected whole numbers. Scale it first: "
            'Image.fromarray((array * 255).round().astype("uint8")) for values from 0 to 1'
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scaled(image)
    if _is_transparent(image):
        return _on_white(_with_key_of_8_bits(image, stored))
    return image.convert("RGB")


def _load(image: Image.Image) -> None:
    if 0 in image.size:
        raise ModeError(f"the picture has {image.width} x {image.height} pixels; expected at least 1 x 1")
    try:
        image.load()
    except (
        AssertionError,
        AttributeError,
        ValueError,
    ) as error:  # PIL's errors for a closed file, depending on how it was closed: `with`, close(), or its stream
        if getattr(image, "fp", None) is None or getattr(image.fp, "closed", False):
            raise ModeError(
                "the picture's file was closed before its pixels were read; call image.load() while it is open"
            ) from error
        raise


def _scaled(image: Image.Image) -> Image.Image:
    """Convert gray of 16 bits, or of 8 bits in mode I, to RGB; a transparent value becomes white."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ModeError(
            f"the picture has values from {low} to {high} (mode {image.mode}); expected 0 to 65535. Scale it first: "
            'Image.fromarray(array.astype("uint8")) for values from 0 to 255'
        )
    deep = image.mode != "I" or image.format in _DEEP_FORMATS or high > 255
    gray = _to_8_bits(values, image) if deep else values.astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray[values == key] = 255
    return Image.fromarray(gray).convert("RGB")


def _to_8_bits(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """Convert gray of 16 bits. Pillow leaves TIFF values as stored: they may have 12 bits, or 0 for white."""
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(_BITS) == (12,) else 65535
    gray = (values.astype(np.uint32) * 255 // white).astype(np.uint8)
    return 255 - gray if tags.get(_PHOTOMETRIC) == 0 else gray


def _is_transparent(image: Image.Image) -> bool:
    if image.mode in _ALPHA_MODES:
        return True
    if image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A"):
        return True
    return image.mode in _KEYED_MODES and image.info.get("transparency") is not None


def _with_key_of_8_bits(image: Image.Image, stored: object) -> Image.Image:
    """Scale a PNG's transparent color, which Pillow keeps in the file's bit depth, to the pixels' 8 bits."""
    key = image.info.get("transparency")
    if image.format != "PNG" or stored not in ("L;2", "L;4", "RGB;16B"):
        return image
    image = image.copy()
    gray = {"L;2": 85, "L;4": 17}.get(stored)
    image.info["transparency"] = key * gray if gray else tuple(value >> 8 for value in key)
    return image


def _on_white(image: Image.Image) -> Image.Image:
    try:
        colors = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    except (TypeError, ValueError) as error:
        raise ModeError(
            f"the picture's info['transparency'] is {image.info.get('transparency')!r:.40}, which is invalid for mode "
            f"{image.mode} ({error}); delete that entry"
        ) from error
    return Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors).convert("RGB")
