"""Checks of plain arguments, so that a wrong type is refused and not read as something else."""

import numbers
from typing import Any


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
        ValueError: anything else, such as a list of texts or bytes.
    """
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__} ({value!r:.60}), expected one string or None")
    return value
