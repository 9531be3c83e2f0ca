"""Evaluation tasks: the pictures and texts of one data set, and how their features are scored.

A task knows neither files nor models. `images` and `texts` map its own pictures and texts to normalized features; the
texts of a classification are class names, whose features are the columns of a classifier.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from vladva_benchmarks.suites import scoring
from vladva_benchmarks.suites.pictures import Openable
from vladva_clip.metrics import foil_accuracy, itt_accuracy, tot_accuracy, winoground_scores
from vladva_clip.zero_shot.rendering import CLIP_BENCHMARKS_HOLE, renderers

Lookup = Callable[[Sequence], torch.Tensor]  # N pictures or texts -> (N, D)
SELECTION = "image_caption_selection"


class Task(Protocol):
    """One data set: its name, its task in clip_benchmark's terms, and the names of its scores."""

    name: str
    task: ClassVar[str]
    metrics: ClassVar[Sequence[str]]

    @property
    def pictures(self) -> list[Openable]:
        """All pictures that `score` looks up."""

    @property
    def texts(self) -> list[str]:
        """All texts that `score` looks up."""

    def counts(self) -> dict[str, int]:
        """The number of items by name."""

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        """Score the features; fractions in [0, 1]."""


@dataclass(frozen=True)
class Retrieval:
    """Pictures with several captions each."""

    name: str
    pictures: list[Openable]
    captions: list[list[str]]
    task: ClassVar[str] = "zeroshot_retrieval"
    metrics: ClassVar[Sequence[str]] = scoring.RETRIEVAL

    @property
    def texts(self) -> list[str]:
        return [caption for captions in self.captions for caption in captions]

    def counts(self) -> dict[str, int]:
        each = [len(captions) for captions in self.captions] or [0]
        return {
            "images": len(self.pictures),
            "captions": sum(each),
            "captions_per_image_min": min(each),
            "captions_per_image_max": max(each),
        }

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        owners = [number for number, captions in enumerate(self.captions) for _ in captions]
        return scoring.retrieval(images(self.pictures), texts(self.texts), torch.tensor(owners))


@dataclass(frozen=True)
class Mean:
    """The mean of several data sets' scores."""

    name: str
    parts: list[Retrieval]
    task: ClassVar[str] = Retrieval.task
    metrics: ClassVar[Sequence[str]] = Retrieval.metrics

    @property
    def pictures(self) -> list[Openable]:
        return [picture for part in self.parts for picture in part.pictures]

    @property
    def texts(self) -> list[str]:
        return [text for part in self.parts for text in part.texts]

    def counts(self) -> dict[str, int]:
        return {"images": len(self.pictures), "captions": len(self.texts)}

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        return scoring.mean([part.score(images, texts) for part in self.parts])


@dataclass(frozen=True)
class Classification:
    """Pictures of one class each.

    Raises:
        ValueError: no class names or templates, or a template without the hole.
    """

    name: str
    pictures: list[Openable]
    labels: list[int]
    classnames: list[str]
    templates: list[str]  # the hole is {c}
    task: ClassVar[str] = "zeroshot_classification"
    metrics: ClassVar[Sequence[str]] = scoring.CLASSIFICATION

    def __post_init__(self) -> None:
        renderers(self.classnames, self.templates, CLIP_BENCHMARKS_HOLE)

    @property
    def texts(self) -> list[str]:
        return self.classnames

    def counts(self) -> dict[str, int]:
        return {"images": len(self.pictures), "classes": len(self.classnames), "templates": len(self.templates)}

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        return scoring.classification(images(self.pictures), texts(self.classnames), torch.tensor(self.labels))


@dataclass(frozen=True)
class Foils:
    """SugarCrepe: pictures with a true and a false caption. The official rule: a tie is wrong."""

    name: str
    pictures: list[Openable]
    captions: list[str]
    negatives: list[str]
    task: ClassVar[str] = SELECTION
    metrics: ClassVar[Sequence[str]] = ("acc",)

    @property
    def texts(self) -> list[str]:
        return [*self.captions, *self.negatives]

    def counts(self) -> dict[str, int]:
        return {"pairs": len(self.pictures)}

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        own = images(self.pictures)
        scores = [scoring.similarity(own, texts(side)) for side in (self.captions, self.negatives)]
        return {"acc": foil_accuracy(*scores)}


@dataclass(frozen=True)
class Choices:
    """Pictures with a true caption and one or more false ones, the same number for each picture. A tie is wrong."""

    name: str
    pictures: list[Openable]
    captions: list[str]
    negatives: list[list[str]]
    task: ClassVar[str] = SELECTION
    metrics: ClassVar[Sequence[str]] = ("acc",)

    @property
    def texts(self) -> list[str]:
        return [*self.captions, *(text for texts in self.negatives for text in texts)]

    def counts(self) -> dict[str, int]:
        return {"pictures": len(self.pictures), "captions_per_picture": 1 + len(self.negatives[0])}

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        own, sides = images(self.pictures), zip(*self.negatives, strict=True)
        true, *false = (scoring.similarity(own, texts(side)) for side in (self.captions, *sides))
        return {"acc": foil_accuracy(true, torch.stack(false).amax(dim=0))}


@dataclass(frozen=True)
class Triples:
    """SugarCrepe++: pictures with two true captions and a false one."""

    name: str
    pictures: list[Openable]
    captions: list[str]
    paraphrases: list[str]
    negatives: list[str]
    task: ClassVar[str] = SELECTION
    metrics: ClassVar[Sequence[str]] = ("itt", "tot")

    @property
    def texts(self) -> list[str]:
        return [*self.captions, *self.paraphrases, *self.negatives]

    def counts(self) -> dict[str, int]:
        return {"triples": len(self.pictures)}

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        """Both of SugarCrepe++'s scores, as fractions."""
        own = images(self.pictures)
        caption, paraphrase, negative = (texts(side) for side in (self.captions, self.paraphrases, self.negatives))
        to_images = [scoring.similarity(own, side) for side in (caption, paraphrase, negative)]
        pairs = ((caption, paraphrase), (caption, negative), (paraphrase, negative))
        return {
            "itt": itt_accuracy(*to_images),
            "tot": tot_accuracy(*(scoring.similarity(*pair) for pair in pairs)),
        }


@dataclass(frozen=True)
class Quadruples:
    """Winoground: two pictures and two captions, each caption true of its own picture only."""

    name: str
    pairs: list[tuple[Openable, Openable]]
    captions: list[tuple[str, str]]
    task: ClassVar[str] = SELECTION
    metrics: ClassVar[Sequence[str]] = ("text", "image", "group")

    @property
    def pictures(self) -> list[Openable]:
        return [picture for pair in self.pairs for picture in pair]

    @property
    def texts(self) -> list[str]:
        return [caption for pair in self.captions for caption in pair]

    def counts(self) -> dict[str, int]:
        return {"quadruples": len(self.pairs)}

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        sides = [found.view(len(self.pairs), 2, -1) for found in (images(self.pictures), texts(self.texts))]
        return winoground_scores(sides[0] @ sides[1].transpose(1, 2))
