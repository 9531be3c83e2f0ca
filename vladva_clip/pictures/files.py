"""Bytes or a file -> an upright RGB picture. Every tool that reads picture files opens them here.

`PIL.Image.open` goes by content, whatever the file's name, and knows some forty formats. One starts a program (EPS:
Ghostscript), and others run code that hardly anybody uses. So untrusted pictures are read in the usual formats only.
"""

import io
import os
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vladva_clip.pictures import pixel_limit
from vladva_clip.pictures.colors import ModeError, to_rgb
from vladva_clip.storage import plain_files

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")  # by PIL's names
SUFFIXES = frozenset(  # of their files, for lists of a folder's pictures; what a file holds is decided by its content
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
    + (".avifs", ".pbm", ".pgm", ".pnm", ".ppm")
)
MAX_BYTES = 1 << 30  # of a file; PIL's own limit of pixels, at four bytes each, is 0.7 GB
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
_ORIENTED = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # entries of `info` that may contain it
_TOO_LARGE = (Image.DecompressionBombWarning, MemoryError)  # the warning is raised under `-W error`

# the first bytes of other formats, in lower case: only for clear error messages
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
    """Data that can't be read as a picture."""


class FormatError(PictureError):
    """A file whose format is not in `FORMATS`, or whose mode can't be turned into colors (see `colors.to_rgb`)."""


class TooLargeError(PictureError):
    """A picture beyond PIL's limit (twice `Image.MAX_IMAGE_PIXELS`), or too large for the memory."""


def read_picture(data: bytes | bytearray, name: str = "the picture") -> Image.Image:
    """Decode a picture completely, rotate it by its EXIF, and convert it to RGB; of several frames, take the first.

    Args:
        data: the content of its file.
        name: how error messages call it.

    Returns:
        The upright RGB image, as `to_rgb(exif_transpose(Image.open(...)))` (see `colors.to_rgb`), with `format`.

    Raises:
        FormatError: another format (the message names it if it is known), or a mode without colors.
        TooLargeError: more pixels than PIL allows, found before memory is allocated for them, or out of memory.
        PictureError: damaged, truncated, or not a picture.
        ValueError: the user's pixel limit is not a number (`pixel_limit`).
    """
    pixel_limit.apply()
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
        _check_tiles(image)
        return _upright(to_rgb(image), image)
    except ModeError as error:
        raise FormatError(str(error).replace("the picture", name, 1)) from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name} is too large ({error}); {pixel_limit.hint()}") from error
    except _TOO_LARGE as error:
        raise TooLargeError(f"{name} is too large ({error or type(error).__name__})") from error
    except Exception as error:  # PIL's decoders can raise anything: OSError, SyntaxError, struct.error, IndexError, ...
        if kind := _kind(data):
            raise FormatError(f"{name} is {kind}; expected {_listed()}") from error
        raise PictureError(f"{name} can't be read as {_listed()} ({_said(error)})") from error


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: the file is missing or unreadable, or is a folder, pipe or device, which may have no end.
        TooLargeError: more than `MAX_BYTES`, or more than fits into memory.
        ValueError: the path contains a NUL.
    """
    try:
        return plain_files.read_bytes(Path(path), MAX_BYTES)
    except plain_files.TooManyBytesError as error:
        raise TooLargeError(f"{path} is too large for a picture: {error}") from error


def open_file(path: str | os.PathLike[str]) -> Image.Image:
    """Return the upright RGB picture in a file; raises as `read_file` and `read_picture`."""
    return read_picture(read_file(path), str(Path(path)))


def require_harmless(image: Image.Image) -> None:
    """Refuse a picture, opened elsewhere, that would start a program when its pixels are decoded.

    Raises:
        FormatError: an EPS image that hasn't been decoded yet.
    """
    if image.format == "EPS" and getattr(image, "tile", None):
        raise FormatError(
            "the picture is EPS, which PIL renders with Ghostscript, a program that executes commands in the file; "
            f"expected {_listed()}. If you trust the file, call image.load() first"
        )


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """Rotate a converted image by the original's EXIF, and remove that EXIF so that nobody rotates it again."""
    orientation = _orientation(image)
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
        for key in _ORIENTED:
            rgb.info.pop(key, None)
    rgb.format = image.format
    return rgb


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; unreadable EXIF counts as 1, so the picture is taken as stored.

    `exif_transpose` is not used: it raises on broken EXIF and on tags that can't be written back. PIL rotates TIFFs
    itself.
    """
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # PIL's readers of EXIF, TIFF tags and XMP can raise anything; the pixels are fine
        return 1


def _formats() -> tuple[str, ...]:
    """Return the formats that this Pillow supports: AVIF came with 11.3, and `Image.open` fails on unknown names."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _listed() -> str:
    *most, last = _formats()
    return f"{', '.join(most)} or {last}"


def _kind(data: bytes | bytearray) -> str | None:
    """Return the name of a format that we don't read, by its first bytes, without asking PIL's plugins."""
    start = bytes(data[:64]).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start[4:8] == b"ftyp":
        avif = start[8:12] in (b"avif", b"avis")
        return ("AVIF, which needs Pillow 11.3" if "AVIF" not in _formats() else None) if avif else "HEIF or a video"
    if start.startswith(b"\1\0\0\0") and start[40:44] == b" emf":
        return "EMF"
    return next((kind for begin, kind in _OTHERS.items() if start.startswith(begin)), None)


def _said(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
        return "Pillow doesn't recognize it"
    return f"{type(error).__name__}: {error}"


def _check_tiles(image: Image.Image) -> None:
    """Refuse huge TIFF tiles, which are decoded whole: a 10 x 10 picture in a 2 MB file could take 2 GB."""
    width, length = (getattr(image, "tag_v2", {}).get(tag, 0) for tag in _TILE_SIDES)
    if Image.MAX_IMAGE_PIXELS is not None and width * length > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"tiles of {width} x {length} pixels")
