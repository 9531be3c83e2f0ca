"""The pictures that a command was asked to read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vladva_clip.pictures.failures import Failure


def find(words: Sequence[str]) -> tuple[list[Path], "list[Failure]"]:
    """Return the picture files that words name, and a failure for each word that names none.

    Raises:
        ValueError: there is no picture at all.
    """
    from vladva_clip.pictures.listing import find_pictures

    paths, failures = find_pictures(words)
    if words and not paths:
        raise ValueError("there is nothing to read: " + "; ".join(f"{one.name}: {one.reason}" for one in failures))
    return paths, failures
