"""Checks of plain arguments, so that a wrong type is refused and not read as something else."""

import numbers
import os
import re
from pathlib import Path
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def whole_number(name: str, value: Any, least: int) -> int:
    """Return an argument that counts something, as an int.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that has a meaning.

    Raises:
        ValueError: not a whole number (a bool or a float isn't), or a smaller one.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} is {value!r:.60}, expected a whole number of at least {least}")
    return int(value)


def optional_text(name: str, value: Any) -> str | None:
    """Return an argument that is one text or None.

    Raises:
        ValueError: anything else, such as a list of texts or bytes; half of a surrogate pair, which no tokenizer takes.
    """
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__} ({value!r:.60}), expected one string or None")
    if value is not None and not is_unicode(value):
        raise ValueError(f"{name} is {value!r:.60}, expected Unicode text without half of a surrogate pair")
    return value


def user_path(value: Any) -> Path:
    """Return an argument that names a file or directory, with `~` replaced by the home directory.

    Raises:
        ValueError: not a path, an empty one, or the home of an unknown user.
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
    """Whether a text can be encoded; half of a surrogate pair, which JSON can spell, cannot."""
    return _SURROGATE.search(text) is None
