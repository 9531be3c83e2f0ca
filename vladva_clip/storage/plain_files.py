"""Bytes and text of regular files: the one way to read a whole file, with one encoding.

The package reads all text as UTF-8, whatever the locale. A byte order mark at the beginning is skipped: some editors
and spreadsheets write one.
"""

import codecs
import os
import stat
from pathlib import Path

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TooManyBytesError(ValueError):
    """A file that is larger than its reader allows, or than fits into memory."""


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        most: the largest size allowed, in bytes; None for no limit.

    Raises:
        OSError: the file is missing or unreadable, or is a folder, pipe or device, which may have no end.
        TooManyBytesError: more than `most`, or more than fits into memory.
        ValueError: the path contains a NUL.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if most is not None and status.st_size > most:
        raise TooManyBytesError(f"more than {most} bytes")
    try:
        with open(path, "rb") as file:
            content = file.read(-1 if most is None else most + 1)  # the file system's size may be wrong
    except MemoryError as error:
        raise TooManyBytesError("more bytes than fit into memory") from error
    if most is not None and len(content) > most:
        raise TooManyBytesError(f"more than {most} bytes")
    return content


def decode(content: bytes) -> str:
    """Decode UTF-8 and drop a byte order mark at the beginning.

    Raises:
        ValueError: another encoding; the message names UTF-16.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        guess = " (it looks like UTF-16)" if content.startswith(_UTF_16) else ""
        raise ValueError(f"not UTF-8 at byte {error.start}{guess}: save it as UTF-8") from error


def read_text(path: Path) -> str:
    """Return the text of a regular file, with line ends as `\\n`.

    Raises:
        ValueError: naming the file; see `read_bytes` and `decode`.
    """
    try:
        return decode(read_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} can't be read as text ({said(error)})") from error


def said(error: Exception) -> str:
    """Return an error's message, without the number and path that an OSError adds."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
