"""The answers about the gallery as figures, compared with chance, and which of them are weak."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vladva_clip.metrics import foil_accuracy, recall_at_k, top_1_accuracy
from vladva_clip.quickstart import written_claims
from vladva_clip.quickstart.gallery import ARRANGEMENTS, OBJECTS, PAIRS, Answers, Picture
from vladva_clip.scenes import Scene


@dataclass(frozen=True)
class Figure:
    """One row of the table: the share of right answers, that of guessing, and the skill tested, in plain words."""

    name: str
    value: float
    chance: float
    skill: str

    @property
    def weak(self) -> bool:
        """Whether the value is less than halfway from chance to 100%."""
        return self.value < (1 + self.chance) / 2


def figures(gallery: list[Picture], answers: Answers) -> list[Figure]:
    """Return the rows of the table. Kinds of sentences that the model never writes have no row."""
    return [*_recognition(gallery, answers), *_order(answers), *_choices(answers), *_written(gallery, answers)]


def table(rows: list[Figure]) -> list[str]:
    """Return the rows as lines, the weak ones last, below a separate line."""
    lines = [f"{'question':<44}{'model':>8}{'chance':>8}"]
    lines += [_line(row) for row in rows if not row.weak]
    weak = [_line(row) for row in rows if row.weak]
    return [*lines, "less than halfway from chance to 100%:", *weak] if weak else lines


def in_words(rows: list[Figure]) -> str:
    """Return one sentence about what the weak rows mean, or an empty string if there are none."""
    weak = list(dict.fromkeys(row.skill for row in rows if row.weak))
    return f"Don't rely on it to {'; '.join(weak)}." if weak else ""


def _line(row: Figure) -> str:
    return f"{row.name:<44}{row.value:>8.1%}{row.chance:>8.1%}"


def _recognition(gallery: list[Picture], answers: Answers) -> list[Figure]:
    n, classes, names = len(gallery), len(PAIRS), len(OBJECTS)
    labels = torch.tensor([picture.label for picture in gallery])
    top_1 = (answers.predicted == labels).float().mean().item()
    itself = torch.eye(n, dtype=torch.bool)
    siblings = answers.similarity.masked_fill(labels[:, None] != labels, float("-inf"))
    among = recall_at_k(siblings, itself, 1)
    return [
        Figure("zero-shot classification, top-1", top_1, 1 / classes, "tell the classes apart"),
        Figure(
            "zero-shot, top-1 of one object's name",
            _one_name(gallery, answers),
            1 / (names - 1),
            "name one object by itself",
        ),
        Figure("text-to-image retrieval, R@1", recall_at_k(answers.similarity, itself, 1), 1 / n, "find a picture"),
        Figure(
            "text-to-image, R@1 among the same objects",
            among,
            1 / len(ARRANGEMENTS),
            "find the right arrangement of the same objects",
        ),
    ]


def _one_name(gallery: list[Picture], answers: Answers) -> float:
    """Return the share of the 2 n objects whose name beats all false ones; the other object's name is left out."""
    asked = [(row, o, other) for row, one in enumerate(gallery) for o, other in _both_ways(one.scene)]
    scores = answers.named[[row for row, *_ in asked]]
    others = torch.tensor([OBJECTS.index(other) for *_, other in asked])
    scores = scores.scatter(1, others[:, None], float("-inf"))
    return top_1_accuracy(scores, torch.tensor([OBJECTS.index(o) for _, o, _ in asked]))


def _both_ways(scene: Scene) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    first, second = (o.pair for o in scene.objects)
    return [(first, second), (second, first)]


def _order(answers: Answers) -> list[Figure]:
    swaps, skill = ("swapped objects", "swapped colors", "opposite relation"), "read word order"
    true, *swapped = answers.offered["order"].T
    rows = [
        Figure(f"word order: above the {swap}", foil_accuracy(true, foil), 1 / 2, skill)
        for swap, foil in zip(swaps, swapped, strict=True)
    ]
    return [*rows, Figure("word order: above all three", _best(true, swapped), 1 / 4, skill)]


def _choices(answers: Answers) -> list[Figure]:
    true, opposite, *other_axis = answers.offered["relation"].T
    placed, *misplaced = answers.offered["place"].T
    sized, first, second, both = answers.offered["size"].T
    one_wrong = foil_accuracy(torch.cat([sized, sized]), torch.cat([first, second]))
    axis, place = "tell left and right from above and below", 'match places such as "at the top"'
    size = "tell small from large when it matches captions"
    return [
        Figure("relation: above both of the other axis", _best(true, other_axis), 1 / 3, axis),
        Figure("relation: best of all four", _best(true, [opposite, *other_axis]), 1 / 4, axis),
        Figure("place: best of four", _best(placed, misplaced), 1 / 4, place),
        Figure("size: above the wrong size of one object", one_wrong, 1 / 2, size),
        Figure("size: best of four", _best(sized, [first, second, both]), 1 / 4, size),
    ]


def _best(true: torch.Tensor, foils: list[torch.Tensor]) -> float:
    return foil_accuracy(true, torch.stack(foils).amax(dim=0))


def _written(gallery: list[Picture], answers: Answers) -> list[Figure]:
    kinds: list[tuple[str, Callable[[str, Scene], list[bool]], str]] = [
        ("it writes: true relation sentences", written_claims.relations, "write true sentences about relations"),
        ("it writes: true sizes", written_claims.sizes, "write true sizes"),
    ]
    rows = []
    for name, claims, skill in kinds:
        found = [true for text, one in zip(answers.written, gallery, strict=True) for true in claims(text, one.scene)]
        rows += [Figure(f"{name} (of {len(found)})", sum(found) / len(found), 1 / 2, skill)] if found else []
    return rows
