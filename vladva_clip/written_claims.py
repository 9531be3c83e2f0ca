"""Which sentences of a caption that a model wrote are true of the drawn scene."""

import re
from collections.abc import Iterable

from vladva_clip.scenes import (
    BACKGROUNDS,
    COLORS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    SHAPES,
    SIZES,
    Mention,
    Scene,
    Statement,
)

RELATION_OF = {phrase: relation for relation, phrases in RELATION_PHRASES.items() for phrase in phrases}
PLACE_OF = {phrase: place for place, phrase in PLACE_PHRASES.items()}
COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4}


def _any_of(words: Iterable[str]) -> str:
    return f"({'|'.join(sorted(words, key=len, reverse=True))})"


_NAME = f"(?:{_any_of(SIZES)} )?{_any_of(COLORS)} {_any_of(SHAPES)}"  # size, color, shape
_RELATION = re.compile(rf"{_NAME} is {_any_of(RELATION_OF)} the {_NAME}")
_OBJECT = re.compile(rf"{_NAME}(?: {_any_of(PLACE_OF)})?")
_OPENING = re.compile(rf"{_any_of(COUNTS)} (?:objects|shapes) on a {_any_of(BACKGROUNDS)} background")


def relations(text: str, scene: Scene) -> list[bool]:
    """Return whether each relation sentence of the text is true of the scene, in their order."""
    found = []
    for size, color, shape, phrase, *other in _RELATION.findall(text):
        first, second = Mention(color, shape, size or None), Mention(*other[1:], other[0] or None)
        found.append(Statement(first, RELATION_OF[phrase], second).true_of(scene))
    return found


def sizes(text: str, scene: Scene) -> list[bool]:
    """Return whether each size word is right, for those that stand before an object of the scene."""
    known = {o.pair: o.size for o in scene.objects}
    named = [(size, (color, shape)) for size, color, shape, _ in _OBJECT.findall(text)]
    return [known[pair] == size for size, pair in named if size and pair in known]


def marked(text: str, scene: Scene) -> str:
    """Return the text with "[false]" behind each sentence that isn't true of the scene.

    Checked are relations, sizes, places, objects, the count and the background, in the words of the drawn world's
    captions; other words are passed over.
    """
    sentences = re.findall(r"[^.]+\.?", text)
    return "".join(one if _true(one.lower(), scene) else f"{one} [false]" for one in sentences)


def _true(sentence: str, scene: Scene) -> bool:
    return all((*relations(sentence, scene), *_objects(sentence, scene), *_opening(sentence, scene)))


def _objects(sentence: str, scene: Scene) -> list[bool]:
    """Whether the scene has each named object, of that size and at that place where they are said."""
    found = []
    for size, color, shape, place in _OBJECT.findall(sentence):
        named = [o for o in scene.objects if Mention(color, shape, size or None).names(o)]
        found.append(any(o.place == PLACE_OF.get(place, o.place) for o in named))
    return found


def _opening(sentence: str, scene: Scene) -> list[bool]:
    found = _OPENING.findall(sentence)
    return [COUNTS[count] == len(scene.objects) and kind == scene.background.kind for count, kind in found]
