"""Where a scene's objects stand and what they look like, and the background behind them, drawn at random."""

import colorsys
import random
from collections.abc import Sequence

from .looks import CLASSIC, UNSEEN_TEXTURE, Look, between
from .objects import Background, SceneObject
from .sampling import pick
from .vocabulary import BACKGROUNDS, CLASSIC_BACKGROUNDS, GRID, PLACES, SIZES

RGB = tuple[int, int, int]

VARIED_SIZES = {"small": (0.08, 0.102), "large": (0.124, 0.158)}
"""Size name -> smallest and largest radius in any look but the classic one; the two ranges don't touch."""

SHADES = {
    "red": ((-12, 8), (0.7, 1.0), (0.6, 1.0)),
    "green": ((95, 150), (0.5, 1.0), (0.4, 0.85)),
    "blue": ((216, 245), (0.65, 1.0), (0.55, 1.0)),
    "yellow": ((50, 60), (0.65, 1.0), (0.85, 1.0)),
    "purple": ((270, 300), (0.5, 0.9), (0.45, 0.75)),
    "orange": ((22, 36), (0.75, 1.0), (0.85, 1.0)),
    "cyan": ((178, 192), (0.5, 0.95), (0.75, 1.0)),
    "white": ((0, 360), (0.0, 0.04), (0.92, 1.0)),
}
"""Color name -> ranges of hue in degrees, saturation and value: every shade that goes by that name."""

_MAX_ROTATION = {True: 10.0, False: 18.0}  # degrees; True for the classic look
_DARK, _MIDDLE, _LIGHT = (0, 70), (70, 165), (165, 255)
_ENOUGH_CONTRAST = 110
_VISIBLE = 24
"""The least distance of a background's two colors: with less, its texture is hardly seen, but named."""
_TRIES = 10


def place_object(
    shape: str, color: str, place: str, size: str, rng: random.Random, look: Look = CLASSIC
) -> SceneObject:
    """One object at its place, with its own jitter in position, scale, rotation and shade."""
    column, row = PLACES[place]
    x, y = (GRID[cell] + between(rng, -look.spread, look.spread) for cell in (column, row))
    most = _MAX_ROTATION[look.is_classic]
    radius, rotation = _radius(rng, size, look), between(rng, -most, most)
    if look.is_classic:
        shade = between(rng, 0.94, 1.0) if color == "white" else between(rng, 0.84, 1.04)
        return SceneObject(shape, color, size, place, x, y, radius, rotation, shade)
    return SceneObject(shape, color, size, place, x, y, radius, rotation, 1.0, _shade(rng, color))


def _radius(rng: random.Random, size: str, look: Look) -> float:
    """A classic radius is anywhere in its word's range; other looks have a part of the range that all objects share."""
    if look.growth is None:
        return between(rng, *SIZES[size])
    low, high = VARIED_SIZES[size]
    share = 0.5 + 0.4 * look.growth + between(rng, -0.1, 0.1)
    return low + (high - low) * share


def _shade(rng: random.Random, color: str) -> RGB:
    hue, saturation, value = (between(rng, *limits) for limits in SHADES[color])
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))
    return red, green, blue


def sample_background(rng: random.Random, look: Look = CLASSIC, objects: Sequence[SceneObject] = ()) -> Background:
    """Draw a background.

    Args:
        rng: where the random numbers come from.
        look: the scene's.
        objects: what will stand before it in any member of the family: it keeps a distance from their colors. Classic
            backgrounds are muted whatever stands before them.
    """
    if look.is_classic:
        kind, texture = pick(rng, CLASSIC_BACKGROUNDS), None
        colors = _muted_color(rng), _muted_color(rng)
    else:
        texture = UNSEEN_TEXTURE if look.style == "unseen" else None
        kind = "striped" if texture else pick(rng, BACKGROUNDS)
        colors = _contrasting(rng, objects)
    count, turned = 6 + int(rng.random() * 7), rng.random() < 0.5
    return Background(kind, colors, count, turned, int(rng.random() * 2**32), texture)


def _contrasting(rng: random.Random, objects: Sequence[SceneObject]) -> tuple[RGB, RGB]:
    """The first of some pairs of tones with enough contrast, or else the pair with the most."""
    tries = [_two_tones(rng) for _ in range(_TRIES)]
    return max(tries, key=lambda colors: min(_contrast(colors, objects), _ENOUGH_CONTRAST))


def _two_tones(rng: random.Random) -> tuple[RGB, RGB]:
    """A tone of any brightness, hardly tinted, and one not far from it."""
    level = between(rng, *pick(rng, (_DARK, _MIDDLE, _LIGHT)))
    other = level + between(rng, 15, 60) * (1 if rng.random() < 0.5 else -1)
    first, second = _tinted(rng, level), _tinted(rng, other)
    return first, second if _distance(first, second) >= _VISIBLE else _toward_middle(first)


def _toward_middle(color: RGB) -> RGB:
    """A tone of the same tint, visibly darker than a light one or lighter than a dark one."""
    step = _VISIBLE if sum(color) < 3 * 128 else -_VISIBLE
    red, green, blue = (part + step for part in color)
    return red, green, blue


def _tinted(rng: random.Random, level: float) -> RGB:
    red, green, blue = (min(255, max(0, round(level + between(rng, -16, 16)))) for _ in range(3))
    return red, green, blue


def _contrast(colors: tuple[RGB, RGB], objects: Sequence[SceneObject]) -> float:
    """The smallest distance between a background color and an object's."""
    distances = [_distance(color, one.rgb) for color in colors for one in objects if one.rgb]
    return min(distances, default=_ENOUGH_CONTRAST)


def _distance(one: RGB, other: RGB) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5


def _muted_color(rng: random.Random) -> RGB:
    """A dull tone, dark to middle gray with a slight tint, against which every color of the vocabulary stands out."""
    level = between(rng, 40, 140)
    red, green, blue = (round(level + between(rng, -14, 14)) for _ in range(3))
    return red, green, blue
