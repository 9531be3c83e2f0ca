"""The drawn world: objects on a 3 x 3 grid, scenes of two to four objects, and families of scenes.

A scene is a pure function of (split, index): the same on every machine, in every process, in any order. Only
`random.Random.random` is used: Python guarantees its sequence.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from .drawing import draw_scene
from .looks import CLASSIC, Look
from .objects import Background, SceneObject
from .placing import place_object, sample_background
from .vocabulary import COLORS, HELD_OUT_PAIRS, PLACES, SHAPES, SIZES

SPLITS = ("train", "test", "heldout")
FAMILY_SIZE = 4


@dataclass(frozen=True)
class Scene:
    """Two to four objects on a background. The first two are the focus pair; swapping them makes a family."""

    objects: tuple[SceneObject, ...]
    background: Background
    seed: int
    look: Look = CLASSIC

    @classmethod
    def of(cls, objects: Sequence[tuple[str, ...]], seed: int = 0) -> "Scene":
        """Build a scene by hand.

        Args:
            objects: (shape, color, place) or (shape, color, place, size) per object; size defaults to "large".
            seed: decides jitter, shade and background.

        Returns:
            The scene, its objects in the given order.

        Raises:
            ValueError: for unknown words, two objects in one place, or two of the same color and shape.

        Example:
            >>> Scene.of([("circle", "red", "left"), ("square", "blue", "right")]).draw(96).size
            (96, 96)
        """
        rng = random.Random(stable_seed("hand-made", seed))
        made = tuple(place_object(*_checked_words(words), rng) for words in objects)
        _check_distinct(made)
        return cls(made, sample_background(rng), stable_seed("hand-made", seed, tuple(map(tuple, objects))))

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


def stable_seed(*key: object) -> int:
    """A 64-bit seed from any key of strings and numbers, the same in every process (unlike `hash`)."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")


def scene(split: str, index: int) -> Scene:
    """The scene of a split at an index: member `index % FAMILY_SIZE` of family `index // FAMILY_SIZE`."""
    return family(split, index // FAMILY_SIZE)[index % FAMILY_SIZE]


def scenes(split: str, start: int = 0, count: int = 1) -> list[Scene]:
    """The scenes of a split from `start` on, family after family.

    Args:
        split: "train"; "test" (new scenes of the trained color-shape pairs); "heldout" (every scene has at
            least one color-shape pair that no training scene has).
        start: first index.
        count: number of scenes.

    Returns:
        A list of `count` scenes.
    """
    first, last = start // FAMILY_SIZE, (start + count - 1) // FAMILY_SIZE
    members = [member for number in range(first, last + 1) for member in family(split, number)]
    return members[start - first * FAMILY_SIZE :][:count]


def family(split: str, number: int) -> list[Scene]:
    """Four scenes of the same objects that differ in who has which color or who is where.

    In "train" and "test": as sampled, colors of the focus pair swapped, places swapped, both swapped. In
    "heldout", where a color swap would lose the held-out pair: as sampled, places swapped, and both again in
    new places.

    Raises:
        ValueError: for an unknown split or a negative number.
    """
    words, rng = _family_words(split, number)
    members = _moved_members(words, rng) if split == "heldout" else _swapped_members(words)
    return [_make_scene(member, stable_seed(split, number, index)) for index, member in enumerate(members)]


def num_objects(split: str, number: int) -> int:
    """The number of objects in each scene of a family, without making its scenes.

    Raises:
        ValueError: as `family`.
    """
    return len(_family_words(split, number)[0])


def crowd(number: int) -> Scene:
    """A training scene with an object in most of the nine places, of trained pairs, colors and shapes repeating.

    It is for training a vision tower and has no captions, since those could not tell its objects apart.
    """
    seed = stable_seed("crowd", number)
    rng = random.Random(seed)
    pairs = [(shape, color) for shape in SHAPES for color in COLORS if (color, shape) not in HELD_OUT_PAIRS]
    places = [place for place in PLACES if rng.random() < 0.85]
    words = [(*pick(rng, pairs), place, pick(rng, list(SIZES))) for place in places]
    return _make_scene(words, seed)


Words = list[tuple[str, str, str, str]]
"""(shape, color, place, size) per object."""


def _family_words(split: str, number: int) -> tuple[Words, random.Random]:
    """The words of a family's first member, and the random generator for the rest."""
    if split not in SPLITS or number < 0:
        raise ValueError(f"found split {split!r}, number {number}; expected one of {SPLITS} and a number from 0 up")
    rng = random.Random(stable_seed("family", split, number))
    return _sample_words(rng, split), rng


def _make_scene(words: Words, seed: int) -> Scene:
    rng = random.Random(seed)
    return Scene(tuple(place_object(*word, rng) for word in words), sample_background(rng), seed)


def _swapped_members(words: Words) -> list[Words]:
    return [words, swap_colors(words), _swap_places(words), _swap_places(swap_colors(words))]


def _moved_members(words: Words, rng: random.Random) -> list[Words]:
    places = old = {word[2] for word in words}
    while set(places) == old:
        places = _sample(rng, list(PLACES), len(words))
    moved = [(shape, color, place, size) for (shape, color, _, size), place in zip(words, places, strict=True)]
    return [words, _swap_places(words), moved, _swap_places(moved)]


def swap_colors(words: Words) -> Words:
    """The same words with the colors of the first two objects exchanged."""
    (shape, color, place, size), (shape2, color2, place2, size2), *rest = words
    return [(shape, color2, place, size), (shape2, color, place2, size2), *rest]


def _swap_places(words: Words) -> Words:
    (shape, color, place, size), (shape2, color2, place2, size2), *rest = words
    return [(shape, color, place2, size), (shape2, color2, place, size2), *rest]


def _sample_words(rng: random.Random, split: str) -> Words:
    """Distinct shapes, colors and places, redrawn until the split's rule on held-out pairs is met."""
    while True:
        count = 2 + int(rng.random() * 3)
        shapes, colors = _sample(rng, list(SHAPES), count), _sample(rng, list(COLORS), count)
        places, sizes = _sample(rng, list(PLACES), count), [pick(rng, list(SIZES)) for _ in range(count)]
        words = list(zip(shapes, colors, places, sizes, strict=True))
        has_held_out = _has_held_out(words) or _has_held_out(swap_colors(words))
        if _has_held_out(words) if split == "heldout" else not has_held_out:
            return words


def _has_held_out(words: Words) -> bool:
    return any((color, shape) in HELD_OUT_PAIRS for shape, color, _, _ in words)


def pick(rng: random.Random, items: Sequence):
    """One item, drawn with `Random.random` alone."""
    return items[int(rng.random() * len(items))]


def _sample(rng: random.Random, items: list[str], count: int) -> list[str]:
    return [items.pop(int(rng.random() * len(items))) for _ in range(count)]


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
