"""Checks what a written caption says about its scene: the objects it names, and the share of true claims."""

import re
from collections.abc import Callable, Iterable, Iterator

from .captions import Mention, Statement
from .long_captions import VERBS, told_relations
from .vocabulary import BACKGROUNDS, COLORS, MORE_RELATION_PHRASES, NUMBERS, PLACE_PHRASES, SHAPES, SIZES
from .world import Scene


def claims(caption: str, scene: Scene) -> dict[str, tuple[int, int]]:
    """Count the true claims of a caption in the style of `long_caption`.

    Args:
        caption: as a model wrote it; case is ignored.
        scene: what the model was shown.

    Returns:
        Kind of `CLAIM_KINDS` -> (true claims, claims). A claim made twice counts once. A caption that makes fewer
        claims of a kind than the scene's `long_caption` counts as if the missing ones were false: silence is wrong.
    """
    words, expected = caption.lower(), _expected(scene)
    made = {kind: set(find(words)) for kind, find in _FINDERS.items()}
    true = {kind: sum(_CHECKS[kind](claim, scene) for claim in found) for kind, found in made.items()}
    return {kind: (true[kind], max(len(made[kind]), expected[kind])) for kind in CLAIM_KINDS}


def claim_accuracy(captions: Iterable[str], scenes: Iterable[Scene]) -> dict[str, float]:
    """Return the share of true claims over many captions and their scenes, for each kind of `CLAIM_KINDS`."""
    counted = [claims(caption, scene) for caption, scene in zip(captions, scenes, strict=True)]
    return {kind: sum(one[kind][0] for one in counted) / sum(one[kind][1] for one in counted) for kind in CLAIM_KINDS}


def named_pairs(caption: str) -> frozenset[tuple[str, str]]:
    """The (color, shape) pairs that a caption names."""
    return frozenset(_PAIR.findall(caption))


def naming_accuracy(scenes: Iterable[Scene], captions: Iterable[str]) -> float:
    """The share of scenes whose caption names every object with its color and shape, and no other object."""
    right = [named_pairs(caption) == scene.pairs for scene, caption in zip(scenes, captions, strict=True)]
    return sum(right) / len(right)


def _expected(scene: Scene) -> dict[str, int]:
    """How many claims of each kind `long_caption` makes."""
    count = len(scene.objects)
    return {"relations": len(told_relations(scene)), "sizes": count, "places": count, "counts": 1, "backgrounds": 1}


def any_of(words: Iterable[str]) -> str:
    """A regex group of words, longest first, so that "top" does not match where "top left" should."""
    return f"({'|'.join(sorted(words, key=len, reverse=True))})"


_RELATIONS = {phrase: relation for relation, phrases in MORE_RELATION_PHRASES.items() for phrase in phrases}
_PLACES = {phrase: place for place, phrase in PLACE_PHRASES.items()}
_NUMBERS = {word: number for number, word in NUMBERS.items()}
_PAIR = re.compile(f"{any_of(COLORS)} {any_of(SHAPES)}")
_SIZE, _OBJECT = f"(?:{any_of(SIZES)} )", f"{any_of(COLORS)} {any_of(SHAPES)}"
_RELATION = re.compile(
    rf"the {_SIZE}?{_OBJECT} (?:{'|'.join(sorted(set(VERBS)))}) {any_of(_RELATIONS)} the {_SIZE}?{_OBJECT}"
)
_SIZED, _PLACED = re.compile(rf"{_SIZE}{_OBJECT}"), re.compile(rf"{_OBJECT} {any_of(_PLACES)}")
_COUNT = re.compile(rf"\b{any_of(_NUMBERS)} (?:object|shape)s?")
_BACKGROUND = re.compile(rf"{any_of(BACKGROUNDS)} background")


def relations_in(caption: str) -> Iterator[Statement]:
    """What the relation sentences of a caption in lower case say."""
    for size, color, shape, phrase, size2, color2, shape2 in _RELATION.findall(caption):
        first, second = Mention(color, shape, size or None), Mention(color2, shape2, size2 or None)
        yield Statement(first, _RELATIONS[phrase], second)


def sizes_in(caption: str) -> Iterator[Mention]:
    """The objects that a caption in lower case names with their size."""
    return (Mention(color, shape, size) for size, color, shape in _SIZED.findall(caption))


def _places(caption: str) -> Iterator[tuple[Mention, str]]:
    return ((Mention(color, shape), _PLACES[phrase]) for color, shape, phrase in _PLACED.findall(caption))


_FINDERS: dict[str, Callable[[str], Iterable]] = {
    "relations": relations_in,
    "sizes": sizes_in,
    "places": _places,
    "counts": _COUNT.findall,
    "backgrounds": _BACKGROUND.findall,
}
_CHECKS: dict[str, Callable[..., bool]] = {
    "relations": lambda statement, scene: statement.true_of(scene),
    "sizes": lambda mention, scene: any(mention.names(one) for one in scene.objects),
    "places": lambda placed, scene: any(placed[0].names(one) and one.place == placed[1] for one in scene.objects),
    "counts": lambda word, scene: _NUMBERS[word] == len(scene.objects),
    "backgrounds": lambda kind, scene: kind == scene.background.kind,
}
CLAIM_KINDS = tuple(_FINDERS)
