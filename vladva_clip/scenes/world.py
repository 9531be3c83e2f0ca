"""The drawn world: objects on a 3 x 3 grid, scenes of one to four objects, and families of scenes.

A scene is a pure function of (split, index, style): the same on every machine, in every process, in any order.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from .drawing import draw_scene
from .families import VARIED_MEMBERS, Word, Words, family_words, first_words, has_held_out, swap_colors, swap_places
from .looks import CLASSIC, STYLES, Look, sample_look
from .objects import Background, SceneObject
from .placing import place_object, sample_background
from .sampling import pick, sample, stable_seed
from .vocabulary import COLORS, HELD_OUT_PAIRS, PLACES, SHAPES, SIZES

SPLITS = ("train", "validation", "test", "heldout")
"""All but "heldout" have the same color-shape pairs; "validation" is for the choice of settings."""
FAMILY_SIZE = 4


@dataclass(frozen=True)
class Scene:
    """One to four objects on a background. The first two, if there are two, are the focus pair."""

    objects: tuple[SceneObject, ...]
    background: Background
    seed: int
    look: Look = CLASSIC

    @classmethod
    def of(cls, objects: Sequence[tuple[str, ...]], seed: int = 0, look: Look = CLASSIC) -> "Scene":
        """Build a scene by hand.

        Args:
            objects: (shape, color, place) or (shape, color, place, size) per object; size defaults to "large".
            seed: decides jitter, shade and background.
            look: how it is drawn.

        Returns:
            The scene, its objects in the given order.

        Raises:
            ValueError: for unknown words, one object or more than four, two in one place, or two of the same
                color and shape.

        Example:
            >>> Scene.of([("circle", "red", "left"), ("square", "blue", "right")]).draw(96).size
            (96, 96)
        """
        rng = random.Random(stable_seed("hand-made", seed))
        made = tuple(place_object(*_checked_words(words), rng, look) for words in objects)
        _check_distinct(made)
        background = sample_background(rng, look, made)
        return cls(made, background, stable_seed("hand-made", seed, tuple(map(tuple, objects))), look)

    def draw(self, image_size: int = 64) -> Image.Image:
        """Draw the scene as an RGB image whose shorter side has `image_size` pixels; a classic scene is square."""
        return draw_scene(self.objects, self.background, image_size, self.look)

    @property
    def style(self) -> str:
        """The style that the scene was sampled for."""
        return self.look.style

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """The (color, shape) pairs of all objects."""
        return frozenset(scene_object.pair for scene_object in self.objects)


def scene(split: str, index: int, style: str = "classic") -> Scene:
    """The scene of a split at an index: member `index % size` of family `index // size`, by `family_size(style)`.

    Raises:
        ValueError: as `family`.
    """
    number, member = divmod(index, family_size(style))
    return family(split, number, style)[member]


def scenes(split: str, start: int = 0, count: int = 1, style: str = "classic") -> list[Scene]:
    """The scenes of a split from `start` on, family after family.

    Args:
        split: "train"; "validation" and "test" (new scenes of the trained color-shape pairs); "heldout" (every
            scene has at least one color-shape pair that no training scene has).
        start: first index.
        count: number of scenes.
        style: of `STYLES`.

    Returns:
        A list of `count` scenes.

    Raises:
        ValueError: as `family`.
    """
    size = family_size(style)
    first, last = start // size, (start + count - 1) // size
    members = [member for number in range(first, last + 1) for member in family(split, number, style)]
    return members[start - first * size :][:count]


def family_size(style: str) -> int:
    """The number of scenes in a family of a style.

    Raises:
        ValueError: for an unknown style.
    """
    _check_style(style)
    return FAMILY_SIZE if style == "classic" else len(VARIED_MEMBERS)


def family(split: str, number: int, style: str = "classic") -> list[Scene]:
    """The scenes of one family, which share their objects and differ in few facts.

    Classic families have four: as sampled, colors of the focus pair swapped, places swapped, both swapped. In
    "heldout", where a color swap would lose the held-out pair: as sampled, places swapped, and both again in
    new places.

    The other styles have eight, on one background and in one look, each different from the first in one fact only:
    see `VARIED_MEMBERS`, and `SINGLE_MEMBERS` for the families of one object. Objects that a member doesn't change are
    drawn exactly as in the first. "unseen" has the scenes of "varied" in words, with the same captions but for
    backgrounds, drawn in the look that "varied" never has, with jitter, shades and a background of their own.

    Raises:
        ValueError: for an unknown split or style, or a negative number.
    """
    _check_family(split, number, style)
    if style != "classic":
        return _varied_family(split, number, style)
    words, rng = _classic_words(split, number)
    members = _moved_members(words, rng) if split == "heldout" else _swapped_members(words)
    return [_make_scene(member, stable_seed(split, number, index)) for index, member in enumerate(members)]


def num_objects(split: str, number: int, style: str = "classic") -> int:
    """The number of objects in the first scene of a family, without making its scenes.

    All classic members have as many, and all others but the one whose count differs.

    Raises:
        ValueError: as `family`.
    """
    _check_family(split, number, style)
    words = _classic_words(split, number)[0] if style == "classic" else first_words(split, number, _rng(split, number))
    return len(words)


def crowd(number: int, style: str = "classic") -> Scene:
    """A training scene with an object in most of the nine places, of trained pairs, colors and shapes repeating.

    It is for training a vision tower and has no captions, since those could not tell its objects apart.

    Raises:
        ValueError: for an unknown style.
    """
    _check_style(style)
    seed = stable_seed("crowd", number)
    rng = random.Random(seed)
    pairs = [(shape, color) for shape in SHAPES for color in COLORS if (color, shape) not in HELD_OUT_PAIRS]
    places = [place for place in PLACES if rng.random() < 0.85]
    words = [(*pick(rng, pairs), place, pick(rng, list(SIZES))) for place in places]
    return _make_scene(words, seed, sample_look(random.Random(stable_seed("crowd look", number, style)), style))


def _check_style(style: str) -> None:
    if style not in STYLES:
        raise ValueError(f"found style {style!r}; expected one of {', '.join(STYLES)}")


def _check_family(split: str, number: int, style: str) -> None:
    _check_style(style)
    if split not in SPLITS or number < 0:
        raise ValueError(f"found split {split!r}, number {number}; expected one of {SPLITS} and a number from 0 up")


def _make_scene(words: Words, seed: int, look: Look = CLASSIC) -> Scene:
    rng = random.Random(seed)
    objects = tuple(place_object(*word, rng, look) for word in words)
    return Scene(objects, sample_background(rng, look, objects), seed, look)


def _rng(split: str, number: int) -> random.Random:
    """The random generator for a varied family's words."""
    return random.Random(stable_seed("varied family", split, number))


def _varied_family(split: str, number: int, style: str) -> list[Scene]:
    """Eight scenes; objects that stay as in the first are the same in all, changed ones keep their jitter."""
    members = family_words(split, number, _rng(split, number))
    look = sample_look(random.Random(stable_seed("look", style, split, number)), style)
    placed: dict[Word, SceneObject] = {}
    for words in members:
        for index, word in enumerate(words):
            if word not in placed:
                placed[word] = place_object(
                    *word, random.Random(stable_seed("object", style, split, number, index)), look
                )
    rng = random.Random(stable_seed("background", style, split, number))
    background = sample_background(rng, look, list(placed.values()))
    return [
        Scene(tuple(placed[word] for word in words), background, stable_seed("varied", split, number, index), look)
        for index, words in enumerate(members)
    ]


def _classic_words(split: str, number: int) -> tuple[Words, random.Random]:
    """The words of a classic family's first member, and the random generator for the rest."""
    rng = random.Random(stable_seed("family", split, number))
    return _sample_words(rng, split), rng


def _swapped_members(words: Words) -> list[Words]:
    return [words, swap_colors(words), swap_places(words), swap_places(swap_colors(words))]


def _moved_members(words: Words, rng: random.Random) -> list[Words]:
    places = old = {word[2] for word in words}
    while set(places) == old:
        places = sample(rng, list(PLACES), len(words))
    moved = [(shape, color, place, size) for (shape, color, _, size), place in zip(words, places, strict=True)]
    return [words, swap_places(words), moved, swap_places(moved)]


def _sample_words(rng: random.Random, split: str) -> Words:
    """Distinct shapes, colors and places, redrawn until the split's rule on held-out pairs is met."""
    while True:
        count = 2 + int(rng.random() * 3)
        shapes, colors = sample(rng, list(SHAPES), count), sample(rng, list(COLORS), count)
        places, sizes = sample(rng, list(PLACES), count), [pick(rng, list(SIZES)) for _ in range(count)]
        words = list(zip(shapes, colors, places, sizes, strict=True))
        is_trained = not has_held_out(words) and not has_held_out(swap_colors(words))
        if has_held_out(words) if split == "heldout" else is_trained:
            return words


def _checked_words(words: Sequence[str]) -> tuple[str, str, str, str]:
    if len(words) not in (3, 4):
        raise ValueError(f"found {words!r}; expected (shape, color, place) or (shape, color, place, size)")
    shape, color, place, size = (*words, "large")[:4]
    for word, known in ((shape, SHAPES), (color, COLORS), (place, PLACES), (size, SIZES)):
        if word not in known:
            raise ValueError(f"found {word!r} in {words!r}; expected one of {', '.join(known)}")
    return shape, color, place, size


def _check_distinct(objects: tuple[SceneObject, ...]) -> None:
    if not 2 <= len(objects) <= 4:
        raise ValueError(f"found {len(objects)} objects; expected 2 to 4")
    for name, values in (
        ("place", [o.place for o in objects]),
        ("color and shape", [o.pair for o in objects]),
    ):
        if len(set(values)) < len(values):
            raise ValueError(f"found two objects with the same {name} in {values}; give every object its own {name}")
