"""What a bag of words can't tell: which words of a scene belong to each other, and which of two objects is where.

A binding is (kind, word, word): "is" for two words of one object ("red is circle", "large is red", "top left is red"),
"left of" and "above" for a word of one object and a word of another. The one-word answers teach the summary token of an
image and that of a caption the same words, through one vocabulary; `BindingHead` teaches them the same bindings.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product

import torch
from torch import nn
from torch.nn import functional

from vladva_clip.scenes import COLORS, PLACES, SHAPES, SIZES, Fact

Binding = tuple[str, str, str]

KINDS = ("is", "left of", "above")
_WORDS = tuple(dict.fromkeys((*COLORS, *SHAPES, *SIZES, *PLACES)))
CLASSES: dict[Binding, int] = {one: index for index, one in enumerate(product(KINDS, _WORDS, _WORDS))}
_INVERSE = {"right of": "left of", "below": "above"}
_RELATED = re.compile(r"(.+) (left of|right of|above|below) (.+)")
_PLACED = re.compile(rf"(.+) at ({'|'.join(sorted(PLACES, key=len, reverse=True))})")


def bindings(facts: Iterable[Fact]) -> frozenset[Binding]:
    """The bindings that follow from facts of a scene, or from the claims of a caption."""
    return frozenset(binding for fact in facts for binding in _of(fact))


@lru_cache(maxsize=1 << 15)
def _of(fact: Fact) -> tuple[Binding, ...]:
    return tuple(_read(fact))


def _read(fact: Fact) -> Iterator[Binding]:
    if related := _RELATED.fullmatch(fact):
        first, relation, second = related.groups()
        if relation in _INVERSE:
            first, relation, second = second, _INVERSE[relation], first
        yield from ((relation, a, b) for a, b in product(first.split(), second.split()))
    elif placed := _PLACED.fullmatch(fact):
        yield from (("is", placed[2], word) for word in placed[1].split())
    elif fact.startswith("there is "):
        words = fact.removeprefix("there is ").split()
        yield from (("is", a, b) for index, a in enumerate(words) for b in words[index + 1 :])


def false_bindings(told: frozenset[Binding], true: frozenset[Binding]) -> frozenset[Binding]:
    """Those of the same words as told ones that aren't true: the other way round, or with another object's word."""
    turned = {(kind, b, a) for kind, a, b in told if kind != "is"}
    owned = [(a, b) for kind, a, b in told if kind == "is"]
    rivals = {a: _rivals(a, {one for one, _ in owned}) for a, _ in owned}
    mixed = {("is", rival, b) for a, b in owned for rival in rivals[a]}
    return frozenset((turned | mixed) - true)


def _rivals(word: str, told: set[str]) -> set[str]:
    """What could stand in a word's place: the other size, or the other told colors or places."""
    if word in SIZES:
        return {*SIZES} - {word}
    return next(told & {*words} for words in (COLORS, PLACES) if word in words) - {word}


def labels(told: Iterable[Fact], facts: Iterable[Fact]) -> list[tuple[int, int]]:
    """(class, 1) of each binding that a row tells and (class, 0) of each false one.

    Args:
        told: what its image shows or its caption claims.
        facts: all facts of its scene.
    """
    true = bindings(told)
    false = false_bindings(true, bindings(facts))
    return [(CLASSES[one], 1) for one in sorted(true)] + [(CLASSES[one], 0) for one in sorted(false)]


class BindingHead(nn.Module):
    """One linear classifier for the summary tokens of images and of captions, so that both say bindings alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, states: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """The mean loss () in nats, of last states (B, D) and what they are asked (3, N): row, class, 1 or 0.

        It is 0 if nothing is asked.
        """
        row, column, truth = asked
        logits = self.head(states).float()[row, column]
        losses = functional.binary_cross_entropy_with_logits(logits, truth.float(), reduction="sum")
        return losses / max(1, len(row))
