"""Which words of a caption tell a fact, and how much of the loss each one gets."""

import re
from collections.abc import Sequence

from vladva_clip.scenes import BACKGROUNDS, COLORS, NUMBERS, PLACES, SHAPES, SIZES

_WORD = re.compile(r"[a-z]+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without marks."""
    return _WORD.findall(text.lower())


RELATION_WORDS = frozenset({"left", "right", "above", "over", "below", "under", "beneath", "higher", "lower"})
PLACE_WORDS = frozenset({"middle", *(word for place in PLACES for word in words_of(place))})
NAMING_WORDS = frozenset({*COLORS, *SHAPES})
FACT_WORDS = frozenset({*NAMING_WORDS, *SIZES, *PLACE_WORDS, *RELATION_WORDS, *NUMBERS.values(), *BACKGROUNDS})

AXES = (
    frozenset({"left", "right"}),
    frozenset({"above", "over", "below", "under", "beneath", "higher", "lower"}),
)
"""Relation words that follow from each other: what is left of something has it on its right."""

ANSWERS = frozenset({"yes", "no"})
BREAKS = frozenset({",", ".", "and", "with"})
"""What ends a phrase: the color behind "top left," is not what a relation leads to."""

FILLER, FACT, DECIDING, ENDING = 0.3, 1.0, 3.0, 0.5
"""Weights of a target. Fillers can't be foreseen (which wording?) or always are; either way they teach little."""


def told_by(caption: str) -> frozenset[str]:
    """The fact words that can follow from a caption: its own, and those of the axes of its relations."""
    own = frozenset(words_of(caption)) & FACT_WORDS
    return own.union(*(axis for axis in AXES if axis & own))


def target_weights(words: Sequence[str], told: frozenset[str] | None = None) -> list[float]:
    """The weight of every word of a caption, given as one word or mark per token.

    With `told`, fact words that are not in it are fillers: nobody can foresee a color that a caption keeps to itself.

    Deciding are "yes" and "no", sizes, counts, backgrounds, places and relations, and the color and shape of what a
    relation leads to: whoever wrote "a red circle left of" has to look to go on.
    """
    weights, related = [], 0
    for word in words:
        is_known = told is None or word not in FACT_WORDS or word in told
        weights.append(_weight(word, related) if is_known else FILLER)
        if word in RELATION_WORDS:
            related = 2  # a color and a shape follow
        elif word in BREAKS:
            related = 0
        elif word in NAMING_WORDS and related:
            related -= 1
    return weights


def _weight(word: str, related: int) -> float:
    if word in NAMING_WORDS:
        return DECIDING if related else FACT
    return DECIDING if word in FACT_WORDS | ANSWERS else FILLER
