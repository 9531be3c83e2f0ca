"""Retrieval between scenes and their short captions, where a caption may answer several scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from vladva_benchmarks.drawn.pictures import DrawnPicture
from vladva_benchmarks.suites.tasks import Lookup, Retrieval
from vladva_clip.scenes import Saying, Scene, facts, short_captions, short_sayings
from vladva_training.run.evaluation import matches, retrieval_scores, true_images

RECALLS = tuple(f"{way}_R@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5))


@dataclass(frozen=True)
class SceneRetrieval(Retrieval):
    """Recall between scenes and their captions. A caption answers every scene that has the same words."""

    metrics: ClassVar[Sequence[str]] = RECALLS

    @classmethod
    def of(cls, gallery: Sequence[Scene]) -> "SceneRetrieval":
        """Return retrieval between scenes and the five short captions of each."""
        return cls("retrieval", list(map(DrawnPicture, gallery)), list(map(short_captions, gallery)))

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        similarity = texts(self.texts) @ images(self.pictures).T  # (T, N)
        return retrieval_scores(similarity, matches(self.texts, self.captions))


@dataclass(frozen=True)
class TruthRetrieval:
    """Recall between scenes and the short captions of each. A caption answers every scene of which it is true."""

    scenes: Sequence[Scene]
    name: str = "retrieval"
    task: ClassVar[str] = Retrieval.task
    metrics: ClassVar[Sequence[str]] = RECALLS

    @property
    def pictures(self) -> list[DrawnPicture]:
        return list(map(DrawnPicture, self.scenes))

    @property
    def texts(self) -> list[str]:
        return [saying.text for saying in self._sayings]

    def counts(self) -> dict[str, int]:
        return {"images": len(self.scenes), "captions": len(self._sayings)}

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        similarity = texts(self.texts) @ images(self.pictures).T  # (T, N)
        return retrieval_scores(similarity, truths([saying.claims for saying in self._sayings], self.scenes))

    @cached_property
    def _sayings(self) -> list[Saying]:
        return [saying for one in self.scenes for saying in short_sayings(one)]


def truths(claims: Sequence[frozenset[str]], drawn: Sequence[Scene]) -> torch.Tensor:
    """Return `(T, N)` bool: whether all claims of text t are facts of scene n."""
    true = torch.zeros(len(claims), len(drawn), dtype=torch.bool)
    for row, images in zip(true, true_images(claims, list(map(facts, drawn))), strict=True):
        row[images] = True
    return true
