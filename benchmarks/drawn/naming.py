"""Naming objects in scenes: their color and shape, in company and alone, and their size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F

from vladva_benchmarks.drawn.pictures import DrawnPicture
from vladva_benchmarks.suites.tasks import Choices, Classification, Lookup
from vladva_clip.metrics import top_1_accuracy
from vladva_clip.scenes import CLASS_TEMPLATES, COLORS, SHAPES, SIZES, Mention, Scene, SceneObject

PAIRS = tuple(product(COLORS, SHAPES))


@dataclass(frozen=True)
class Naming:
    """Zero-shot classification of objects: which color-shape pair is in the picture?

    In a scene of several objects, each of them is a question of its own. The classes are all 48 pairs except those of
    the scene's other objects: one class is true of the picture, and some of the false ones give the object another
    object's color or shape. Chance is about 1/46; for an object alone, 1/48.

    pictures: one for each question. pairs: the right answers.
    """

    name: str
    pictures: list[DrawnPicture]
    pairs: list[tuple[str, str]]
    task: ClassVar[str] = Classification.task
    metrics: ClassVar[Sequence[str]] = ("top_1",)

    @property
    def texts(self) -> list[str]:
        return [template.format(Mention(*pair).phrase) for pair in PAIRS for template in CLASS_TEMPLATES]

    def counts(self) -> dict[str, int]:
        return {"objects": len(self.pairs), "classes": len(PAIRS), "templates": len(CLASS_TEMPLATES)}

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        prompts = texts(self.texts).view(len(PAIRS), len(CLASS_TEMPLATES), -1)
        classes = F.normalize(prompts.mean(dim=1), dim=-1)  # (48, D)
        questions = list(zip(self.pictures, self.pairs, strict=True))
        others = torch.tensor([[other in one.scene.pairs - {pair} for other in PAIRS] for one, pair in questions])
        similarity = (images(self.pictures) @ classes.T).masked_fill(others, float("-inf"))  # (Q, 48)
        return {"top_1": top_1_accuracy(similarity, torch.tensor([PAIRS.index(pair) for pair in self.pairs]))}


def among_others(name: str, gallery: Sequence[Scene], asked: frozenset[tuple[str, str]]) -> Naming:
    """Return the naming of every object whose pair is asked for, in the scenes as they are."""
    questions = [(DrawnPicture(one), pair) for one in gallery for pair in sorted(one.pairs & asked)]
    return Naming(name, *map(list, zip(*questions, strict=True)))


def alone(name: str, gallery: Sequence[Scene], asked: frozenset[tuple[str, str]]) -> Naming:
    """Return the naming of each scene's first object whose pair is asked for, with all other objects taken away.

    The suite `scenes` has the same classes, and the same pictures if all pairs are asked for.
    """
    found = [(one, next((o for o in one.objects if o.pair in asked), None)) for one in gallery]
    asked_about = [(DrawnPicture(replace(one, objects=(o,))), o.pair) for one, o in found if o]
    return Naming(name, *map(list, zip(*asked_about, strict=True)))


def sizes(name: str, gallery: Sequence[Scene]) -> Choices:
    """Return the choice between small and large for every object of the scenes, which the captions name in full."""
    questions = [(DrawnPicture(one), *captions) for one in gallery for captions in _size_captions(one)]
    return Choices(name, *map(list, zip(*questions, strict=True)))


def _size_captions(scene: Scene) -> Iterator[tuple[str, list[str]]]:
    for one in scene.objects:
        yield _sized(one, one.size), [_sized(one, size) for size in SIZES if size != one.size]


def _sized(one: SceneObject, size: str) -> str:
    return Mention(one.color, one.shape, size).phrase
