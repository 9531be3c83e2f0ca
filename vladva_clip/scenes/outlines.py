"""The shapes as closed lines of points, in units of the radius, y pointing down."""

import math
import random

Points = list[tuple[float, float]]

CORNERS_OF_A_CIRCLE = 28


def outline(shape: str, arms: float = 1.0, slim: float = 1.0) -> Points:
    """Return a shape's outline.

    Args:
        shape: of the vocabulary.
        arms: factor on the width of a cross's arms and on a star's inner radius.
        slim: factor on the width of a diamond, which is taller than wide so that it is not a turned square.
    """
    if shape == "star":
        return _star(0.5 * arms)
    if shape == "cross":
        return _cross(half_width=0.36 * arms)
    if shape == "diamond":
        return [(x * slim, y) for x, y in _FIXED[shape]]
    return _FIXED[shape]


def turned(points: Points, degrees: float) -> Points:
    """The outline turned clockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in points]


def wobbled(points: Points, seed: int, amount: float = 0.11) -> Points:
    """The outline as if drawn by hand: points along its sides, each a little off."""
    rng = random.Random(seed)
    dense = [
        (x + (x2 - x) * part / 4, y + (y2 - y) * part / 4)
        for (x, y), (x2, y2) in zip(points, points[1:] + points[:1], strict=True)
        for part in range(4 if len(points) < CORNERS_OF_A_CIRCLE else 1)
    ]
    return [(x + amount * (2 * rng.random() - 1), y + amount * (2 * rng.random() - 1)) for x, y in dense]


def _star(inner: float) -> Points:
    radii = (1.2, inner)
    turns = [(radii[step % 2], math.radians(36 * step - 90)) for step in range(10)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in turns]


def _cross(half_width: float, arm: float = 1.05) -> Points:
    quarter = [(half_width, -arm), (half_width, -half_width), (arm, -half_width)]
    return [point for turn in range(4) for point in turned(quarter, 90 * turn)]


def _circle() -> Points:
    angles = [2 * math.pi * step / CORNERS_OF_A_CIRCLE for step in range(CORNERS_OF_A_CIRCLE)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


_FIXED: dict[str, Points] = {
    "circle": _circle(),
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0.0, -1.1), (1.05, 0.8), (-1.05, 0.8)],
    "diamond": [(0.0, -1.25), (0.8, 0.0), (0.0, 1.25), (-0.8, 0.0)],
}
