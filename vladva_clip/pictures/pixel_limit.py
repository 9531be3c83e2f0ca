"""How many pixels a picture may have: Pillow's limit, or the user's, from the environment of every process."""

import os
from functools import cache

from PIL import Image

VARIABLE = "VLADVA_CLIP_MAX_PIXELS"


def apply() -> None:
    """Set the user's limit, if there is one, as Pillow's, for everything in this process.

    Raises:
        ValueError: the variable is not a whole number of at least 2.
    """
    if said := os.environ.get(VARIABLE):
        _apply(said)


@cache
def _apply(said: str) -> None:
    if not said.isdecimal() or int(said) < 2:
        raise ValueError(f"{VARIABLE} is {said!r:.80}, expected a whole number of pixels, such as 400000000")
    Image.MAX_IMAGE_PIXELS = int(said) // 2  # Pillow warns beyond it, and refuses beyond twice as many


def hint() -> str:
    """What to do about a picture that is larger and trusted."""
    return f"if you trust it, set {VARIABLE} to allow more pixels"
