"""How a scene is drawn: fill, edge, canvas, tilt, and what a camera or a codec would add.

The styles are sets of looks. "classic" is the one look of the first release. "varied" mixes many, and is what training
draws. "unseen" is a combination that training never draws, and every part of it is its own: a fill, a background
texture, an edge and a canvas ratio. It was chosen before anything was trained on "varied", and no setting is chosen by
it.
"""

import random
from dataclasses import dataclass, replace
from functools import cached_property

from .sampling import weighted

STYLES = ("classic", "varied", "unseen")

FILLS = ("solid", "bordered", "gradient", "outlined")
EDGES = ("smooth", "jagged", "soft")
RATIOS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 5 / 4, 4 / 5)
"""Width divided by height of the canvas."""

UNSEEN_FILL, UNSEEN_EDGE, UNSEEN_TEXTURE, UNSEEN_RATIO = "hatched", "wobbly", "diagonal", 8 / 5

CLASSIC_SHARE = 0.15
"""How many of the varied scenes have the classic look."""


@dataclass(frozen=True)
class Look:
    """What all objects of a scene share in the way they are drawn; the defaults are those of "classic".

    Attributes:
        style: the style that it was sampled for.
        fill: "solid"; "bordered", with a line of `line` around it; "outlined", a line in the object's color around
            nothing; "gradient", from a lighter to a darker color; "hatched", striped with a darker color.
        edge: "smooth" (anti-aliased), "jagged" (not), "soft" (blurred), "wobbly" (as if drawn by hand).
        ratio: width divided by height of the canvas.
        thickness: of the line, as a share of an object's radius.
        line: RGB of the line around "bordered" objects.
        spread: how far an object may be from the center of its place, as a share of the canvas.
        growth: -1 to 1, where in the range of its size word an object's radius lies.
        arms: factor on the width of a cross's arms and on a star's inner radius.
        slim: factor on the width of a diamond.
        zoom: factor on all distances from the canvas's center.
        tilt: (shear, perspective): how much the plane of the objects leans.
        blur: radius of the final blur in 64ths of the shorter side.
        grain: share of noise mixed into the picture.
        light: (brightness, contrast, saturation), factors.
        quality: of JPEG compression; None leaves it out.
        seed: of grain and wobbles.
    """

    style: str = "classic"
    fill: str = "solid"
    edge: str = "smooth"
    ratio: float = 1.0
    thickness: float = 0.0
    line: tuple[int, int, int] = (0, 0, 0)
    spread: float = 0.02
    growth: float | None = None
    arms: float = 1.0
    slim: float = 1.0
    zoom: float = 1.0
    tilt: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    grain: float = 0.0
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    quality: int | None = None
    seed: int = 0

    @cached_property
    def is_classic(self) -> bool:
        """Whether it looks as the first release drew, in whatever style."""
        return replace(self, style="classic") == CLASSIC


CLASSIC = Look()


def sample_look(rng: random.Random, style: str) -> Look:
    """Draw a look of a style.

    Raises:
        ValueError: for an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"found style {style!r}; expected one of {', '.join(STYLES)}")
    if style == "classic" or (style == "varied" and rng.random() < CLASSIC_SHARE):
        return replace(CLASSIC, style=style)
    look = _varied(rng)
    if style == "unseen":
        return replace(look, style=style, fill=UNSEEN_FILL, edge=UNSEEN_EDGE, ratio=UNSEEN_RATIO)
    return look


def _varied(rng: random.Random) -> Look:
    edge = weighted(rng, EDGES, (0.4, 0.2, 0.4))
    return Look(
        style="varied",
        fill=weighted(rng, FILLS, (0.35, 0.25, 0.2, 0.2)),
        edge=edge,
        ratio=weighted(rng, RATIOS, (6, 1, 1, 1, 1, 1, 1)),
        thickness=between(rng, 0.16, 0.42),
        line=_line(rng),
        spread=between(rng, 0.01, 0.05),
        growth=between(rng, -1, 1),
        arms=between(rng, 0.75, 1.3),
        slim=between(rng, 0.9, 1.45),
        zoom=between(rng, 0.9, 1.0),
        tilt=(between(rng, -0.1, 0.1), between(rng, -0.3, 0.3)) if rng.random() < 0.4 else (0.0, 0.0),
        blur=between(rng, 0.3, 0.8) if edge == "soft" else 0.0,
        grain=between(rng, 0.02, 0.1) if rng.random() < 0.3 else 0.0,
        light=tuple(between(rng, 0.85, 1.15) for _ in range(3)) if rng.random() < 0.5 else (1.0, 1.0, 1.0),
        quality=round(between(rng, 25, 90)) if rng.random() < 0.35 else None,
        seed=int(rng.random() * 2**32),
    )


def _line(rng: random.Random) -> tuple[int, int, int]:
    """Nearly black, or nearly white."""
    level = round(between(rng, 0, 45) if rng.random() < 0.7 else between(rng, 225, 255))
    return level, level, level


def between(rng: random.Random, low: float, high: float) -> float:
    """A number from low to high, drawn with `Random.random` alone."""
    return low + (high - low) * rng.random()
