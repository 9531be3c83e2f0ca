"""Check which sentences of a caption that a model wrote are true of the drawn scene."""

import re

from vladva_clip.scenes import BACKGROUNDS, COLORS, COUNTS, PLACE_PHRASES, SHAPES, SIZES, Mention, Scene
from vladva_clip.scenes.claims import any_of, relations_in, sizes_in

_PLACES = {phrase: place for place, phrase in PLACE_PHRASES.items()}
_NUMBERS = {word: number for number, word in COUNTS.items()}
_OBJECT = re.compile(rf"(?:{any_of(SIZES)} )?{any_of(COLORS)} {any_of(SHAPES)}(?: {any_of(_PLACES)})?")
_OPENING = re.compile(rf"{any_of(_NUMBERS)} (?:objects|shapes) on a {any_of(BACKGROUNDS)} background")


def relations(text: str, scene: Scene) -> list[bool]:
    """Return whether each relation sentence of the text is true of the scene, in order."""
    return [statement.true_of(scene) for statement in relations_in(text.lower())]


def sizes(text: str, scene: Scene) -> list[bool]:
    """Return whether each size word is right, for words that precede an object of the scene."""
    known = {one.pair: one.size for one in scene.objects}
    named = [(mention.size, (mention.color, mention.shape)) for mention in sizes_in(text.lower())]
    return [known[pair] == size for size, pair in named if pair in known]


def marked(text: str, scene: Scene) -> str:
    """Return the text with "[false]" after each sentence that isn't true of the scene.

    Relations, sizes, places, objects, the count and the background are checked, in the words of the drawn world's
    captions; other words are ignored.
    """
    sentences = re.findall(r"[^.]+\.?", text)
    return "".join(one if _true(one.lower(), scene) else f"{one} [false]" for one in sentences)


def _true(sentence: str, scene: Scene) -> bool:
    return all((*relations(sentence, scene), *_objects(sentence, scene), *_opening(sentence, scene)))


def _objects(sentence: str, scene: Scene) -> list[bool]:
    """Return whether the scene has each named object, with its size and place if the sentence gives them."""
    found = []
    for size, color, shape, place in _OBJECT.findall(sentence):
        named = [o for o in scene.objects if Mention(color, shape, size or None).names(o)]
        found.append(any(o.place == _PLACES.get(place, o.place) for o in named))
    return found


def _opening(sentence: str, scene: Scene) -> list[bool]:
    found = _OPENING.findall(sentence)
    return [_NUMBERS[count] == len(scene.objects) and kind == scene.background.kind for count, kind in found]
