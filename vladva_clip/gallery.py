"""A small gallery of drawn scenes in files, and the form of what a model says about it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from vladva_clip.scenes import Mention, Scene

PAIRS = (  # (color, shape) twice: one class of the gallery each
    (("red", "circle"), ("blue", "square")),
    (("green", "star"), ("yellow", "triangle")),
    (("purple", "diamond"), ("white", "cross")),
    (("orange", "triangle"), ("cyan", "star")),
    (("yellow", "circle"), ("red", "diamond")),
    (("blue", "cross"), ("orange", "square")),
    (("white", "star"), ("green", "square")),
    (("cyan", "circle"), ("purple", "triangle")),
)
ARRANGEMENTS = (("left of", "left", "right"), ("right of", "right", "left"), ("above", "top", "bottom"))


@dataclass(frozen=True)
class Picture:
    """One gallery image: its class, its true caption, and the same words in three wrong orders."""

    path: Path
    label: int
    caption: str
    swaps: tuple[str, str, str]


@dataclass(frozen=True)
class Answers:
    """What the model said, as tensors over the gallery's n pictures.

    predicted: `(n,)` class index. similarity: `(n, n)` caption x picture. order: `(n, 4)` picture x (true caption,
    swaps). written: captions that the model wrote, of the first picture of the first classes.
    """

    predicted: torch.Tensor
    similarity: torch.Tensor
    order: torch.Tensor
    written: list[str]


def class_names() -> list[str]:
    """Return the gallery's classes, in the order of the labels."""
    return [f"{Mention(*first).phrase} and {Mention(*second).phrase}" for first, second in PAIRS]


def draw_gallery(output_dir: Path) -> list[Picture]:
    """Draw every pair in every arrangement to a PNG file each."""
    output_dir.mkdir(parents=True, exist_ok=True)
    gallery = []
    for label, (first, second) in enumerate(PAIRS):
        for relation, place, other_place in ARRANGEMENTS:
            scene = Scene.of([(*first[::-1], place), (*second[::-1], other_place)], seed=len(gallery))
            path = output_dir / f"{len(gallery):02d}-{'-'.join((*first, *relation.split(), *second))}.png"
            scene.draw(192).save(path)
            gallery.append(Picture(path, label, *captions(first, second, relation)))
    return gallery


def captions(first: tuple[str, str], second: tuple[str, str], relation: str) -> tuple[str, tuple[str, str, str]]:
    """Return a caption and its swaps: of the objects, of the colors, of the relation."""
    opposite = {"left of": "right of", "right of": "left of", "above": "below"}[relation]
    one, other = Mention(*first).phrase, Mention(*second).phrase
    recolored, other_recolored = Mention(second[0], first[1]).phrase, Mention(first[0], second[1]).phrase
    swaps = f"{other} {relation} {one}", f"{recolored} {relation} {other_recolored}", f"{one} {opposite} {other}"
    return f"{one} {relation} {other}", swaps
