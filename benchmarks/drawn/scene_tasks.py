"""What the scene figures ask, as tasks of the suites: retrieval, foils, SugarCrepe++, Winoground, classification.

The scenes are new to the encoder, and so are some of the questions: `evaluation_foils` has kinds that no training
draws. Scores on the foils of training show what was trained, not what is understood.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F
from PIL import Image

from vladva_benchmarks.suites.drawn_foils import trained_foils
from vladva_benchmarks.suites.drawn_scenes import IMAGE_SIZE
from vladva_benchmarks.suites.tasks import Choices, Classification, Lookup, Quadruples, Retrieval, Task, Triples
from vladva_clip.metrics import top_1_accuracy
from vladva_clip.scenes import (
    CLASS_TEMPLATES,
    COLORS,
    EVALUATION_KINDS,
    EVALUATION_TRIPLES,
    FAMILY_SIZE,
    FOIL_KINDS,
    HELD_OUT_PAIRS,
    SHAPES,
    TRIPLE_KINDS,
    Mention,
    Scene,
    evaluation_foils,
    evaluation_triples,
    evaluation_winoground,
    scenes,
    short_captions,
    triples,
    winoground,
)
from vladva_training.run.evaluation import matches, retrieval_scores

PAIRS = tuple(product(COLORS, SHAPES))
RECALLS = tuple(f"{way}_R@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5))


@dataclass(frozen=True)
class DrawnPicture:
    """A scene as the suites' tasks and encoders take pictures; equal scenes are one picture."""

    scene: Scene

    @property
    def name(self) -> str:
        return f"scene {self.scene.seed}"

    def open(self) -> Image.Image:
        """Draw it."""
        return self.scene.draw(IMAGE_SIZE)

    def sha256(self) -> str:
        """Return a hash of everything that decides what is drawn."""
        return hashlib.sha256(repr(self.scene).encode()).hexdigest()


@dataclass(frozen=True)
class SceneRetrieval(Retrieval):
    """Recall between scenes and their captions. A caption answers every scene that has the same words."""

    metrics: ClassVar[Sequence[str]] = RECALLS

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        similarity = texts(self.texts) @ images(self.pictures).T  # (T, N)
        return retrieval_scores(similarity, matches(self.texts, self.captions))


@dataclass(frozen=True)
class Naming:
    """Zero-shot classification of objects: which color-shape pair is in the picture?

    A scene has several objects, so each of them is a question of its own. The classes are all 48 pairs except those of
    the scene's other objects: one class is true of the picture, and some of the false ones give the object another
    object's color or shape. Chance is about 1/46.

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


def scene_tasks(split: str, count: int, foil_count: int) -> list[Task]:
    """Return all questions about one split.

    Args:
        split: "test" (new scenes of the trained color-shape pairs) or "heldout" (each has a never-seen pair).
        count: images of the gallery, whole families: a multiple of four.
        foil_count: the first `foil_count` of them are asked about foils and triples.

    Returns:
        Tasks named `retrieval`, `foils/KIND`, `triples/KIND`, `evaluation_foils/KIND`, `evaluation_triples/KIND`,
        `winoground`, `evaluation_winoground`, `zero_shot`. A kind that no scene allows is left out.

    Raises:
        ValueError: the gallery ends within a family, or no scene is asked about foils.
    """
    if count < FAMILY_SIZE or count % FAMILY_SIZE:
        raise ValueError(f"count is {count}; expected whole families of {FAMILY_SIZE}, such as 1000")
    if foil_count < 1:
        raise ValueError(f"foil_count is {foil_count}; expected at least 1")
    gallery = scenes(split, 0, count)
    asked = gallery[:foil_count]
    return [
        retrieval_task(gallery),
        *foil_tasks(asked),
        *_by_kind(Triples, "triples", TRIPLE_KINDS, asked, triples),
        *_by_kind(Choices, "evaluation_foils", EVALUATION_KINDS, asked, evaluation_foils),
        *_by_kind(Triples, "evaluation_triples", EVALUATION_TRIPLES, asked, evaluation_triples),
        *_winoground("winoground", [winoground(split, number) for number in range(count // FAMILY_SIZE)]),
        *_winoground("evaluation_winoground", [found for one in asked if (found := evaluation_winoground(one))]),
        _naming(gallery, HELD_OUT_PAIRS if split == "heldout" else frozenset(PAIRS)),
    ]


def retrieval_task(gallery: Sequence[Scene]) -> SceneRetrieval:
    """Return retrieval between scenes and the five short captions of each."""
    return SceneRetrieval("retrieval", list(map(DrawnPicture, gallery)), list(map(short_captions, gallery)))


def foil_tasks(drawn: Sequence[Scene]) -> list[Choices]:
    """Return SugarCrepe's seven kinds, a caption and a foil for each scene."""
    return list(_by_kind(Choices, "foils", FOIL_KINDS, drawn, trained_foils))


def _by_kind(
    make: Callable[..., Task],
    group: str,
    kinds: Sequence[str],
    drawn: Sequence[Scene],
    ask: Callable[[Scene], Mapping[str, tuple]],
) -> Iterator[Task]:
    """A task for each kind, of the scenes that have it; `ask` returns the columns of a scene's row by kind."""
    asked = [(DrawnPicture(one), ask(one)) for one in drawn]
    for kind in kinds:
        if rows := [(picture, *found[kind]) for picture, found in asked if kind in found]:
            yield make(f"{group}/{kind}", *map(list, zip(*rows, strict=True)))


def _winoground(name: str, quadruples: Sequence[tuple[Scene, Scene, str, str]]) -> Iterator[Quadruples]:
    if quadruples:
        pairs = [(DrawnPicture(first), DrawnPicture(second)) for first, second, _, _ in quadruples]
        yield Quadruples(name, pairs, [(first, second) for _, _, first, second in quadruples])


def _naming(gallery: Sequence[Scene], asked: frozenset[tuple[str, str]]) -> Naming:
    questions = [(DrawnPicture(one), pair) for one in gallery for pair in sorted(one.pairs & asked)]
    return Naming("zero_shot", *map(list, zip(*questions, strict=True)))
