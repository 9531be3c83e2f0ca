"""Which captions of drawn scenes are true of which pictures.

A caption of a scene that is not classic may be true of many: "two shapes" fits every picture with two. clip_benchmark's
layout can't say that, so it stands in a file beside the shards, and decides what counts as found in our runs.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from vladva_benchmarks.suites import scoring
from vladva_benchmarks.suites.annotations import read_json
from vladva_benchmarks.suites.tasks import Lookup, Retrieval
from vladva_clip.metrics import wrong_items_ahead
from vladva_clip.scenes import Scene, facts, short_sayings
from vladva_training.run.evaluation import true_images

FILE = "truth.json"


@dataclass(frozen=True)
class TrueRetrieval(Retrieval):
    """Pictures with captions that may be true of further pictures: those are right answers too.

    labels: for each of `texts`, the numbers of all pictures of which it is true.
    """

    labels: list[list[int]]

    def score(self, images: Lookup, texts: Lookup) -> dict[str, float]:
        pictures, captions = images(self.pictures), texts(self.texts)
        ways = {"image": (captions, pictures, self.labels), "text": (pictures, captions, self._texts_of_pictures())}
        ahead = {name: torch.cat(list(_wrong_ahead(*way))) for name, way in ways.items()}
        asked = ((name, k) for name in ways for k in scoring.RECALL_AT)
        return {f"{name}_retrieval_recall@{k}": (ahead[name] < k).double().mean().item() for name, k in asked}

    def _texts_of_pictures(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in self.pictures]
        for text, pictures in enumerate(self.labels):
            for picture in pictures:
                found[picture].append(text)
        return found


def write(place: Path, drawn: Sequence[Scene]) -> None:
    """Write `truth.json` into the folder of retrieval: caption -> the numbers of all pictures of which it is true."""
    sayings = [saying for one in drawn for saying in short_sayings(one)]
    found = true_images([saying.claims for saying in sayings], [facts(one) for one in drawn])
    truth = {saying.text: pictures for saying, pictures in zip(sayings, found, strict=True)}
    (place / FILE).write_text(json.dumps(truth) + "\n")


def read(place: Path, captions: Sequence[Sequence[str]]) -> list[list[int]]:
    """Read of which pictures each caption is true.

    Args:
        place: the folder of retrieval.
        captions: of each picture.

    Returns:
        For each caption of each picture, in order, the numbers of the pictures.

    Raises:
        ValueError: the file is missing, or does not say it of every caption, its own picture included.
    """
    path = place / FILE
    truth = read_json(path, dict)
    for number, text in ((number, text) for number, texts in enumerate(captions) for text in texts):
        found = truth.get(text)
        if not isinstance(found, list) or not all(type(one) is int and 0 <= one < len(captions) for one in found):
            raise ValueError(f"{path} has {found!r:.60} for {text!r}, expected numbers of the {len(captions)} pictures")
        if number not in found:
            raise ValueError(f"{path} says that {text!r} is not true of picture {number}, whose caption it is")
    return [truth[text] for text in chain.from_iterable(captions)]


def _wrong_ahead(
    queries: torch.Tensor, items: torch.Tensor, answers: Sequence[Sequence[int]]
) -> Iterator[torch.Tensor]:
    """Count the wrong items ahead of each query's best answer, some queries at a time."""
    size = max(1, scoring.BLOCK // len(items))
    for start in range(0, len(queries), size):
        similarity = queries[start : start + size] @ items.T
        right = torch.zeros(similarity.shape, dtype=torch.bool)
        for row, own in zip(right, answers[start : start + size], strict=True):
            row[own] = True
        yield wrong_items_ahead(similarity, right)
