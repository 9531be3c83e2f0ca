"""Checks of plain arguments, so that a wrong type is refused instead of being read as something else."""

import numbers
import os
import re
from pathlib import Path
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def whole_number(name: str, value: Any, least: int) -> int:
    """Return a count as an int.

    Args:
        name: the argument's name.
        value: the value that was given.
        least: the smallest valid value.

    Raises:
        ValueError: not a whole number (bools and floats don't count), or too small.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} is {value!r:.60}, expected a whole number of at least {least}")
    return int(value)


def optional_text(name: str, value: Any) -> str | None:
    """Return an argument that is a string or None.

    Raises:
        ValueError: anything else, such as a list or bytes; or half a surrogate pair, which no tokenizer takes.
    """
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__} ({value!r:.60}), expected one string or None")
    if value is not None and not is_unicode(value):
        raise ValueError(f"{name} is {value!r:.60}, expected Unicode text without half a surrogate pair")
    return value


def user_path(value: Any) -> Path:
    """Return a file or directory argument as a Path, with `~` replaced by the home directory.

    Raises:
        ValueError: not a path, an empty path, or the home directory of an unknown user.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        raise ValueError(
            f"the path is {value!r:.60} ({type(value).__name__}), expected the name of a file or directory"
        )
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"the path {str(value)!r:.200} begins with a home directory that can't be found") from error


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded as UTF-8. Half a surrogate pair, which JSON can contain, cannot."""
    return _SURROGATE.search(text) is None
