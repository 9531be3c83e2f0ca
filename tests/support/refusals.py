"""Checks that bad input is refused with a message that names what is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.adapters import load


def refused(directory: Path, *words: object, call: Callable[[], object] | None = None, **options: object) -> str:
    """Check that loading a directory raises ValueError with certain words in its message.

    Args:
        directory: a base or an adapter.
        words: what the message must contain, as text.
        call: called instead of loading the directory.
        options: of `create_model`.

    Returns:
        The message.
    """
    with pytest.raises(ValueError) as caught:
        call() if call else load(directory, **options)
    message = str(caught.value)
    missing = [word for word in words if str(word) not in message]
    assert not missing, f"{missing} not in: {message}"
    return message
