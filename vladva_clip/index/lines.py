"""Files with a label or a text per line, read without importing torch: their mistakes are reported at once."""

import codecs
import re
from pathlib import Path

from vladva_clip.pictures.failures import Failure
from vladva_clip.storage import plain_files

_BREAK = re.compile(b"\r\n|\n|\r")


def read_lines(path: Path, failures: list[Failure] | None = None) -> list[str]:
    """Return the lines of a UTF-8 text file, without spaces around them; empty lines are skipped.

    Args:
        path: the file.
        failures: gets the lines that can't be read, by number, if others can; None for an error about the first.

    Raises:
        ValueError: unreadable, not UTF-8 or binary, with the line's number; or nothing in it.
    """
    wrong: dict[int, str] = {}
    try:
        lines = _BREAK.split(plain_files.read_bytes(path).removeprefix(codecs.BOM_UTF8))
        found = [text for number, line in enumerate(lines, 1) if (text := _text(line, number, wrong))]
        if wrong and (failures is None or not found):
            raise ValueError("line {} {}".format(*next(iter(wrong.items()))))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as lines of text ({plain_files.said(error)})") from error
    if not found:
        raise ValueError(f"{path} is empty, expected a text per line")
    if failures is not None:
        failures += [Failure(f"{path}: line {number}", reason) for number, reason in wrong.items()]
    return found


def _text(line: bytes, number: int, wrong: dict[int, str]) -> str:
    """A line's text; "" if it can't be read, with the reason in `wrong`."""
    if b"\0" in line:
        wrong[number] = "has a NUL: a binary file or UTF-16, expected UTF-8"
        return ""
    try:
        return line.decode().strip()
    except UnicodeDecodeError:
        wrong[number] = "is not UTF-8: save the file as UTF-8"
        return ""
