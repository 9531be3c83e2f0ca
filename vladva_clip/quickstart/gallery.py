"""A small gallery of drawn scenes in files, the captions offered for each, and the model's answers as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vladva_clip.scenes import COLORS, PLACE_PHRASES, RELATIONS, SHAPES, Mention, Scene, Statement

PAIRS = (  # two (color, shape) each: the gallery's classes
    (("red", "circle"), ("blue", "square")),
    (("green", "star"), ("yellow", "triangle")),
    (("purple", "diamond"), ("white", "cross")),
    (("orange", "triangle"), ("cyan", "star")),
    (("yellow", "circle"), ("red", "diamond")),
    (("blue", "cross"), ("orange", "square")),
    (("white", "star"), ("green", "square")),
    (("cyan", "circle"), ("purple", "triangle")),
)
ARRANGEMENTS = (
    ("left of", "left", "right"),
    ("right of", "right", "left"),
    ("above", "top", "bottom"),
    ("below", "bottom", "top"),
)
SIZE_PAIRS = (("large", "large"), ("small", "small"), ("large", "small"), ("small", "large"))
OBJECTS = tuple((color, shape) for color in COLORS for shape in SHAPES)
"""All (color, shape) of an object, in the order of `Answers.named`."""
SHOWN = (0, 9, 18, 27)
"""The pictures to show when only a few fit: every ninth, one of each relation and of each pair of sizes."""


@dataclass(frozen=True)
class Picture:
    """One gallery image: its class, its scene, and the captions offered for it.

    offered: question -> four captions, of which only the first is true. The other three: `order`: objects, colors, or
    relation swapped; `relation`: the opposite one and the two of the other axis; `place`: the same with places; `size`:
    the size of the first, the second, or both objects changed.
    """

    path: Path
    label: int
    scene: Scene
    offered: Mapping[str, tuple[str, ...]]

    @property
    def caption(self) -> str:
        """The true caption."""
        return self.offered["order"][0]

    @property
    def swaps(self) -> tuple[str, ...]:
        """The three captions with the same words in a wrong order."""
        return self.offered["order"][1:]


@dataclass(frozen=True)
class Answers:
    """The model's answers, as tensors over the gallery's n pictures.

    predicted: `(n,)` class index. named: `(n, 48)` cosines of picture x object's name. similarity: `(n, n)` cosines of
    caption x picture. offered: question -> `(n, 4)` cosines of picture x (true caption, foils). logit_scale: the
    model's factor for cosines. written: the `n` captions that the model wrote.
    """

    predicted: torch.Tensor
    named: torch.Tensor
    similarity: torch.Tensor
    offered: Mapping[str, torch.Tensor]
    logit_scale: float
    written: list[str]


def class_names() -> list[str]:
    """Return the names of the gallery's classes, in the order of the labels."""
    return [f"{Mention(*first).phrase} and {Mention(*second).phrase}" for first, second in PAIRS]


def draw_gallery(output_dir: Path) -> list[Picture]:
    """Draw every pair in every arrangement, each to a PNG file.

    Returns:
        32 pictures, four of each class. Each class has every pair of sizes once and each relation has it twice, so
        that a constant answer is right no more often than chance.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    gallery = []
    for label, (first, second) in enumerate(PAIRS):
        for turn, (relation, place, other_place) in enumerate(ARRANGEMENTS):
            size, other_size = SIZE_PAIRS[(label + turn) % len(SIZE_PAIRS)]
            objects = [(*first[::-1], place, size), (*second[::-1], other_place, other_size)]
            scene = Scene.of(objects, seed=len(gallery))
            path = output_dir / f"{len(gallery):02d}-{'-'.join((*first, *relation.split(), *second))}.png"
            scene.draw(192).save(path)
            gallery.append(Picture(path, label, scene, offered_captions(scene, relation)))
    return gallery


def offered_captions(scene: Scene, relation: str) -> dict[str, tuple[str, ...]]:
    """Return the four captions of each question (see `Picture`) for a scene of two objects in that relation."""
    one, other = (Mention.of(scene_object) for scene_object in scene.objects)
    true = Statement(one, relation, other)
    swapped_colors = replace(true, first=Mention(other.color, one.shape), second=Mention(one.color, other.shape))
    orders = (true, replace(true, first=other, second=one), swapped_colors, replace(true, relation=RELATIONS[relation]))
    return {
        "order": tuple(statement.render() for statement in orders),
        "relation": tuple(replace(true, relation=word).render() for word in _turned(relation)),
        "place": tuple(_placed(one, other, word) for word in _turned(relation)),
        "size": tuple(_sized(scene, true, changed) for changed in ((), (0,), (1,), (0, 1))),
    }


def _turned(relation: str) -> tuple[str, ...]:
    """Return the relation, its opposite, and the two of the other axis."""
    return relation, RELATIONS[relation], *(word for word in RELATIONS if word not in (relation, RELATIONS[relation]))


def _placed(one: Mention, other: Mention, relation: str) -> str:
    place, other_place = next(places for word, *places in ARRANGEMENTS if word == relation)
    return f"{one.phrase} {PLACE_PHRASES[place]} and {other.phrase} {PLACE_PHRASES[other_place]}"


def _sized(scene: Scene, true: Statement, changed: tuple[int, ...]) -> str:
    """Return the true statement with sizes, but wrong ones for the changed objects."""
    opposite = {"small": "large", "large": "small"}
    sizes = [opposite[o.size] if index in changed else o.size for index, o in enumerate(scene.objects)]
    return replace(true, first=replace(true.first, size=sizes[0]), second=replace(true.second, size=sizes[1])).render()
