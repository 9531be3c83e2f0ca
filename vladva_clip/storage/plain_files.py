"""Bytes and text of regular files: the one way to read a file whole, and one rule of encoding.

Text is UTF-8 wherever the package reads it, whatever the locale says. A byte order mark at its beginning is skipped:
some editors and spreadsheets write one.
"""

import codecs
import os
import stat
from pathlib import Path

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TooManyBytesError(ValueError):
    """A file larger than its reader, or the memory, allows."""


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        most: bytes that it may have; None for any number.

    Raises:
        OSError: not there, not readable, or a folder, pipe or device, which may have no end.
        TooManyBytesError: more than `most`, or more than the memory holds.
        ValueError: a path with a NUL.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if most is not None and status.st_size > most:
        raise TooManyBytesError(f"more than {most} bytes")
    try:
        with open(path, "rb") as file:
            content = file.read(-1 if most is None else most + 1)  # whatever size the file system states
    except MemoryError as error:
        raise TooManyBytesError("more bytes than the memory holds") from error
    if most is not None and len(content) > most:
        raise TooManyBytesError(f"more than {most} bytes")
    return content


def decode(content: bytes) -> str:
    """Decode UTF-8, without a byte order mark at the beginning.

    Raises:
        ValueError: another encoding; UTF-16 is named.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        guess = " (it looks like UTF-16)" if content.startswith(_UTF_16) else ""
        raise ValueError(f"not UTF-8 at byte {error.start}{guess}: save it as UTF-8") from error


def read_text(path: Path) -> str:
    """Return the text of a regular file, line ends as `\\n`.

    Raises:
        ValueError: naming the file; what `read_bytes` and `decode` refuse.
    """
    try:
        return decode(read_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} can't be read as text ({said(error)})") from error


def said(error: Exception) -> str:
    """Return what an error says, without the number and the path that an OSError's text repeats."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
