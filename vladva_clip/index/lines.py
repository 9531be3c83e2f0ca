"""Files with a label or a text per line, read without importing torch: their mistakes are reported at once."""

import codecs
import re
from pathlib import Path

from vladva_clip.storage import plain_files

_BREAK = re.compile(b"\r\n|\n|\r")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, without spaces around them; empty lines are skipped.

    Raises:
        ValueError: unreadable, not UTF-8 or binary, with the line's number; or nothing in it.
    """
    try:
        text = _text(plain_files.read_bytes(path).removeprefix(codecs.BOM_UTF8))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as lines of text ({plain_files.said(error)})") from error
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if not any(lines):
        raise ValueError(f"{path} is empty, expected a text per line")
    return [line for line in lines if line]


def _text(content: bytes) -> str:
    if (place := content.find(b"\0")) >= 0:
        raise ValueError(f"line {_line(content, place)} has a NUL: a binary file or UTF-16, expected UTF-8")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"line {_line(content, error.start)} is not UTF-8: save the file as UTF-8") from error


def _line(content: bytes, place: int) -> int:
    return len(_BREAK.findall(content, 0, place)) + 1
