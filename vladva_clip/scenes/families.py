"""Families of the varied world in words: eight scenes, of which each differs from the first in one fact.

Relations, colors, shapes, sizes, places and counts are each decided by some pair of a family, so that none of them can
be guessed from another.
"""

import random
from collections.abc import Callable

from .relations import relation_of_places, steps
from .sampling import pick, sample
from .vocabulary import COLORS, HELD_OUT_PAIRS, PLACES, RELATIONS, SHAPES, SIZES

VARIED_MEMBERS = ("as sampled", "colors", "places", "axis", "size", "place", "count", "object")
"""In what each member of a varied family of two to four objects differs from the first."""

SINGLE_MEMBERS = ("as sampled", "color", "shape", "size", "place", "another place", "count", "color and shape")
"""The same for families of one object."""

_SINGLE_EVERY = 6
_ALIGNED = 2 / 3
_TRIES = 20

Word = tuple[str, str, str, str]
Words = list[Word]
"""(shape, color, place, size) per object."""


def family_words(split: str, number: int, rng: random.Random) -> list[Words]:
    """The words of the eight members of a varied family, all different.

    Members of "train", "validation" and "test" have no held-out pair. Every member of "heldout" has at least one:
    where its change would lose the last one, one object that is not needed for that gets another color instead, and
    a single object becomes another held-out pair.
    """
    words = first_words(split, number, rng)
    members = [words]
    for change in (_SEVERAL if len(words) > 1 else _SINGLE).values():
        members.append(_changed(change, members, split, rng))
    return members


def _changed(change: "Change", members: list[Words], split: str, rng: random.Random) -> Words:
    """The first member with the change, or with another one if the split's rule on held-out pairs forbids it."""
    for _ in range(_TRIES):
        words = change(members[0], rng)
        if words not in members and _is_allowed(words, split):
            return words
    return _changed(_another_color if len(members[0]) > 1 else _another_pair, members, split, rng)


def first_words(split: str, number: int, rng: random.Random) -> Words:
    """The words of a family's first member: one object in every sixth family, else two to four.

    Of two to four objects, the first two stand in one row or one column in two families of three; all four relations
    are equally frequent between them.
    """
    if number % _SINGLE_EVERY == _SINGLE_EVERY - 1:
        return _one_object(split, rng)
    count, relation, aligned = 2 + int(rng.random() * 3), pick(rng, list(RELATIONS)), rng.random() < _ALIGNED
    while True:
        words = _several_objects(count, pick(rng, _FOCUS_PLACES[relation, aligned]), rng)
        if _is_allowed(words, split) and _places_across(words):
            return words


def _one_object(split: str, rng: random.Random) -> Words:
    color, shape = pick(rng, _PAIRS[split == "heldout"])
    return [(shape, color, pick(rng, list(PLACES)), pick(rng, list(SIZES)))]


def _several_objects(count: int, focus: tuple[str, str], rng: random.Random) -> Words:
    shapes, colors = sample(rng, list(SHAPES), count), sample(rng, list(COLORS), count)
    places = [*focus, *sample(rng, [place for place in PLACES if place not in focus], count - 2)]
    sizes = [pick(rng, list(SIZES)) for _ in range(count)]
    return list(zip(shapes, colors, places, sizes, strict=True))


def has_held_out(words: Words) -> bool:
    """Whether an object has a held-out pair of color and shape."""
    return any((color, shape) in HELD_OUT_PAIRS for shape, color, _, _ in words)


def _is_allowed(words: Words, split: str) -> bool:
    """Whether the words keep the split's rule; trained pairs stay trained ones when a foil swaps the colors."""
    if split == "heldout":
        return has_held_out(words)
    return not has_held_out(words) and not (len(words) > 1 and has_held_out(swap_colors(words)))


def swap_colors(words: Words) -> Words:
    """The same words with the colors of the first two objects exchanged."""
    (shape, color, place, size), (shape2, color2, place2, size2), *rest = words
    return [(shape, color2, place, size), (shape2, color, place2, size2), *rest]


def swap_places(words: Words) -> Words:
    """The same words with the places of the first two objects exchanged."""
    (shape, color, place, size), (shape2, color2, place2, size2), *rest = words
    return [(shape, color, place2, size), (shape2, color2, place, size2), *rest]


Change = Callable[[Words, random.Random], Words]


def _changes_axis(words: Words, rng: random.Random) -> Words:
    """The second object in the first one's column if they stood side by side, else in its row."""
    return _moved(words, 1, pick(rng, _places_across(words)))


def _places_across(words: Words) -> list[str]:
    """The free places that put the second object on the other axis, if possible where no relation of before holds."""
    first, second = words[0][2], words[1][2]
    right, down = steps(first, second)
    axis, before = (0, _sign(down)) if abs(right) >= abs(down) else (1, _sign(right))
    places = [place for place in _free_places(words) if steps(first, place)[axis] == 0]
    return [place for place in places if _sign(steps(first, place)[1 - axis]) != before] or places


def _another_size(words: Words, rng: random.Random) -> Words:
    shape, color, place, size = words[0]
    return [(shape, color, place, pick(rng, [other for other in SIZES if other != size])), *words[1:]]


def _another_place(words: Words, rng: random.Random) -> Words:
    """One object in a free place, if possible one where all relations, else its relations to the focus pair, stay."""
    moves = [(index, place) for index in range(len(words)) for place in _free_places(words)]
    kept = [move for move in moves if _keeps_relations(words, *move, len(words))]
    kept = kept or [move for move in moves if _keeps_relations(words, *move, 2)]
    return _moved(words, *pick(rng, kept or moves))


def _keeps_relations(words: Words, index: int, place: str, count: int) -> bool:
    """Whether a moved object stands to the other ones among the first `count` as it stood before."""
    others = [other[2] for number, other in enumerate(words[:count]) if number != index]
    return all(_sides(words[index][2], other) == _sides(place, other) for other in others)


def _another_count(words: Words, rng: random.Random) -> Words:
    """One object more with a color, a shape and a place of its own. Of four objects the last one goes.

    If that would take the only held-out pair, the third one goes.
    """
    if len(words) == 4:
        return [*words[:2], words[3]] if has_held_out(words[3:]) and not has_held_out(words[:3]) else words[:3]
    shapes, colors = _absent(words, 0, SHAPES), _absent(words, 1, COLORS)
    more = (pick(rng, shapes), pick(rng, colors), pick(rng, _free_places(words)), pick(rng, list(SIZES)))
    return [*words, more]


def _another_object(words: Words, rng: random.Random) -> Words:
    return _another_color(words, rng) if rng.random() < 0.5 else _another_shape(words, rng)


def _another_color(words: Words, rng: random.Random) -> Words:
    index = int(rng.random() * len(words))
    shape, _, place, size = words[index]
    return _replaced(words, index, (shape, pick(rng, _absent(words, 1, COLORS)), place, size))


def _another_shape(words: Words, rng: random.Random) -> Words:
    index = int(rng.random() * len(words))
    _, color, place, size = words[index]
    return _replaced(words, index, (pick(rng, _absent(words, 0, SHAPES)), color, place, size))


def _another_pair(words: Words, rng: random.Random) -> Words:
    """A single object with another color and another shape."""
    (shape, color, place, size), *_ = words
    pairs = [pair for pair in (*_PAIRS[False], *_PAIRS[True]) if pair[0] != color and pair[1] != shape]
    color, shape = pick(rng, pairs)
    return [(shape, color, place, size)]


def _moved(words: Words, index: int, place: str) -> Words:
    shape, color, _, size = words[index]
    return _replaced(words, index, (shape, color, place, size))


def _replaced(words: Words, index: int, word: Word) -> Words:
    return [*words[:index], word, *words[index + 1 :]]


def _absent(words: Words, field: int, vocabulary: dict | tuple) -> list[str]:
    present = {word[field] for word in words}
    return [name for name in vocabulary if name not in present]


def _free_places(words: Words) -> list[str]:
    return _absent(words, 2, PLACES)


def _sides(first: str, second: str) -> tuple[int, int]:
    right, down = steps(first, second)
    return _sign(right), _sign(down)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _focus_places(relation: str, aligned: bool) -> list[tuple[str, str]]:
    """The pairs of places with a main relation; `aligned`: only those in one row or column."""
    pairs = [(first, second) for first in PLACES for second in PLACES if first != second]
    return [pair for pair in pairs if relation_of_places(*pair) == relation and not (aligned and all(steps(*pair)))]


_FOCUS_PLACES = {
    (relation, aligned): _focus_places(relation, aligned) for relation in RELATIONS for aligned in (False, True)
}
_PAIRS = {
    held_out: [(color, shape) for color in COLORS for shape in SHAPES if ((color, shape) in HELD_OUT_PAIRS) == held_out]
    for held_out in (False, True)
}
_SEVERAL: dict[str, Change] = {
    "colors": lambda words, rng: swap_colors(words),
    "places": lambda words, rng: swap_places(words),
    "axis": _changes_axis,
    "size": _another_size,
    "place": _another_place,
    "count": _another_count,
    "object": _another_object,
}
_SINGLE: dict[str, Change] = {
    "color": _another_color,
    "shape": _another_shape,
    "size": _another_size,
    "place": _another_place,
    "another place": _another_place,
    "count": _another_count,
    "color and shape": _another_pair,
}
