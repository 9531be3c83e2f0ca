"""Bytes or a file -> an upright RGB picture: the only file that opens pictures, for every tool that reads files.

`PIL.Image.open` decides by content, whatever the name, and knows some forty formats. One starts a program (EPS:
Ghostscript), others are read by code that hardly anybody uses. Strangers' pictures are read in the usual formats only.
"""

import io
import os
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vladva_clip.pictures.colors import ModeError, to_rgb
from vladva_clip.storage import plain_files

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")  # by PIL's names
MAX_BYTES = 1 << 30  # of a file: four bytes a pixel at PIL's own limit of pixels are 0.7 GB
_TILE_SIDES = (322, 323)  # TIFF tags: width and length of a tile, pixels
_ORIENTATION = 274  # EXIF tag
_TURNS = {  # its values, as in PIL.ImageOps.exif_transpose
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTED = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # entries of `info` that may state it
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)  # a warning under `-W error`

# what other files begin with, in lower case: it decides nothing and makes errors clear
_OTHERS = {
    **dict.fromkeys((b"%!ps", b"\xc5\xd0\xd3\xc6"), "EPS"),
    **dict.fromkeys((b"<!doctype html", b"<html"), "HTML"),
    **dict.fromkeys((b"\0\0\0\x0cjp  ", b"\xff\x4f\xff\x51"), "JPEG 2000"),
    **dict.fromkeys((b"\0\0\0\x0cjxl ", b"\xff\x0a"), "JPEG XL"),
    **{b"%pdf": "PDF", b"<svg": "SVG", b"<?xml": "XML (SVG?)", b"8bps": "PSD", b"\0\0\1\0": "ICO", b"icns": "ICNS"},
    **{b"simple  =": "FITS", b"grib": "GRIB", b"\x89hdf": "HDF5", b"bufr": "BUFR", b"dds ": "DDS"},
    **{b"blp": "BLP", b"qoif": "QOI", b"v/1\1": "OpenEXR", b"#?radiance": "Radiance HDR", b"ii\xbc\1": "JPEG XR"},
    **{b"\xd7\xcd\xc6\x9a": "WMF", b"\xd0\xcf\x11\xe0": "an OLE file (FlashPix, MIC)", b"pk\x03\x04": "ZIP"},
}


class PictureError(ValueError):
    """What can't be read as a picture."""


class FormatError(PictureError):
    """A file of another format than `FORMATS`, or of a mode that has no colors (see `colors.to_rgb`)."""


class TooLargeError(PictureError):
    """A picture beyond PIL's limit of pixels (`Image.MAX_IMAGE_PIXELS`, twice), or beyond the memory there is."""


def read_picture(data: bytes | bytearray, name: str = "the picture") -> Image.Image:
    """Decode a picture to its last byte, turn it as its EXIF says, and make it RGB; of several frames, the first.

    Args:
        data: the content of its file.
        name: what errors call it.

    Returns:
        The upright RGB image, as `to_rgb(exif_transpose(Image.open(...)))` (see `colors.to_rgb`), with `format`.

    Raises:
        FormatError: another format (known ones are named), or a mode that has no colors.
        TooLargeError: more pixels than PIL allows, found before memory is taken for them, or no memory.
        PictureError: damaged, cut, or no picture at all.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
        _check_tiles(image)
        return _upright(to_rgb(image), image)
    except ModeError as error:
        raise FormatError(str(error).replace("the picture", name, 1)) from error
    except _TOO_LARGE as error:
        raise TooLargeError(f"{name} is too large ({error or type(error).__name__})") from error
    except Exception as error:  # PIL's decoders let anything out: OSError, SyntaxError, struct.error, IndexError, ...
        if kind := _kind(data):
            raise FormatError(f"{name} is {kind}; pictures are read as {_listed()}") from error
        raise PictureError(f"{name} can't be read as {_listed()} ({_said(error)})") from error


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: not there, not readable, or a folder, pipe or device, which may have no end.
        TooLargeError: more than `MAX_BYTES`, or more than the memory holds.
        ValueError: a path with a NUL.
    """
    try:
        return plain_files.read_bytes(Path(path), MAX_BYTES)
    except plain_files.TooManyBytesError as error:
        raise TooLargeError(f"{path} is too large for a picture: {error}") from error


def open_file(path: str | os.PathLike[str]) -> Image.Image:
    """Return the upright RGB picture of a file; raises as `read_file` and `read_picture`."""
    return read_picture(read_file(path), str(Path(path)))


def require_harmless(image: Image.Image) -> None:
    """Refuse a picture opened elsewhere that would start a program when its pixels are asked for.

    Raises:
        FormatError: an EPS that hasn't been decoded yet.
    """
    if image.format == "EPS" and getattr(image, "tile", None):
        raise FormatError(
            "the picture is EPS, which PIL would have drawn by Ghostscript, a program that takes orders from the file: "
            f"pictures are read as {_listed()}. If you trust the file, call image.load() first"
        )


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """Turn a converted image as the EXIF of the original says, and remove that EXIF, so that it isn't turned again."""
    orientation = _orientation(image)
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
        for key in _ORIENTED:
            rgb.info.pop(key, None)
    rgb.format = image.format
    return rgb


def _orientation(image: Image.Image) -> int:
    """How the camera was held: 1 to 8, 1 also where the EXIF can't be read: then the picture is taken as it is stored.

    `exif_transpose` raises on broken EXIF, and where other tags can't be written again. TIFF: PIL has turned it.
    """
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever PIL's readers of EXIF, TIFF tags and XMP let out; the pixels are fine
        return 1


def _formats() -> tuple[str, ...]:
    """Those that this Pillow has: AVIF came with 11.3, and an unknown name is a KeyError in `Image.open`."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _listed() -> str:
    *most, last = _formats()
    return f"{', '.join(most)} or {last}"


def _kind(data: bytes | bytearray) -> str | None:
    """Name what isn't read, by the first bytes and without asking PIL's plugins."""
    start = bytes(data[:64]).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start[4:8] == b"ftyp":
        avif = start[8:12] in (b"avif", b"avis")
        return ("AVIF, which needs Pillow 11.3" if "AVIF" not in _formats() else None) if avif else "HEIF or a film"
    if start.startswith(b"\1\0\0\0") and start[40:44] == b" emf":
        return "EMF"
    return next((kind for begin, kind in _OTHERS.items() if start.startswith(begin)), None)


def _said(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # it names an object in memory
        return "Pillow finds none of them in it"
    return f"{type(error).__name__}: {error}"


def _check_tiles(image: Image.Image) -> None:
    """A TIFF's tile is decoded whole: in a file of 2 MB, a picture of 10 x 10 pixels could ask for 2 GB."""
    width, length = (getattr(image, "tag_v2", {}).get(tag, 0) for tag in _TILE_SIDES)
    if Image.MAX_IMAGE_PIXELS is not None and width * length > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"tiles of {width} x {length} pixels")
