"""An independent reader of sayings: regular expressions and coordinates, none of the library's logic or wordings."""

import re

from tests.support.scene_truth import relation_is_true
from vladva_clip.scenes import BACKGROUNDS, COLORS, SHAPES, Scene

COLOR, SHAPE = "|".join(COLORS), "|".join(SHAPES)
OBJECT = re.compile(
    rf"(?:something ({COLOR})|(?:\b(?:a|an|the) )?(?:(small|large) )?(?:({COLOR}) )?({SHAPE})\b"
    rf"|(?:\b(?:a|an|the) )({COLOR}) (?:shape|object)\b)"
)
RELATIONS = {
    "left of": r"(?:to the )?left of|further left than",
    "right of": r"(?:to the )?right of|further right than",
    "above": "above|over|higher than",
    "below": "below|under|beneath|lower than",
}
SIDES = {
    "left of": "(?:to|on) its left",
    "right of": "(?:to|on) its right",
    "above": "(?:above|over) it",
    "below": "(?:below|under|beneath) it",
}
PLACE = (
    r"(?:(?:in|at|on) the )?(top left|top right|bottom left|bottom right|top|bottom|left|right|center|middle)"
    r"(?: corner| center| side)?"
)
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
COUNT = re.compile(r"\b(one|two|three|four) (?:objects?|shapes?)\b|\b(only|nothing but|just|a single object)\b")
BACKGROUND = re.compile(rf"a ({'|'.join(BACKGROUNDS)}) background")
FILLERS = (
    {"a", "an", "picture", "photo", "image", "drawing", "of", "with", "there", "is", "are", "you", "can", "see", "we"}
    | {"this", "shows", "here", "and", "plus", "besides", "on", "against", "in", "one", "them", "the", "shapes"}
    | {"exactly", "be", "seen", "placed", "sits", "stands", "has"}
)


class Reading:
    """What a text says: mentions, relations between them, places, a number of objects, a background, and the rest."""

    def __init__(self, text: str):
        self.mentions = []
        self.rest = OBJECT.sub(self._mention, text)
        self.backgrounds = self._take(BACKGROUND)
        self.relations = self._relations()
        self.places = self._places()
        self.counts = [NUMBERS.get(number, 1) for number, _ in self._take(COUNT)]

    @property
    def leftovers(self) -> set[str]:
        """The words that were not understood."""
        return set(re.findall(r"[a-z]+", self.rest)) - FILLERS

    def true_of(self, drawn: Scene) -> bool:
        """Whether all that was understood is so."""
        found = [[one for one in drawn.objects if _fits(mention, one)] for mention in self.mentions]
        return (
            all(found)
            and all(_stand(relation, found[i], found[j]) for i, relation, j in self.relations)
            and all(any(_place_of(one) == place for one in found[i]) for i, place in self.places)
            and all(count == len(drawn.objects) for count in self.counts)
            and all(kind == drawn.background.kind for kind in self.backgrounds)
        )

    def _mention(self, match: re.Match) -> str:
        something, size, color, shape, thing = match.groups()
        self.mentions.append((size, something or color or thing, shape))
        return f"<{len(self.mentions) - 1}>"

    def _take(self, pattern: re.Pattern) -> list:
        found = pattern.findall(self.rest)
        self.rest = pattern.sub(" ", self.rest)
        return found

    def _relations(self) -> list[tuple[int, str, int]]:
        found = []
        for relation, side in SIDES.items():
            for pattern in (rf"<(\d)> (?:with|has) <(\d)> {side}", rf"<(\d)> and {side} <(\d)>"):
                found += [(int(second), relation, int(first)) for first, second in self._taken(pattern)]
        for relation, phrase in RELATIONS.items():
            verb = "(?: is| sits| stands| is placed| can be seen)?"
            found += [(int(i), relation, int(j)) for i, j in self._taken(rf"<(\d)>{verb} (?:{phrase}) <(\d)>")]
            found += [
                (int(i), relation, int(j))
                for j, i in self._taken(rf"(?:^|, )(?:{phrase}) <(\d)> (?:is|sits|there is) <(\d)>")
            ]
        return found

    def _taken(self, pattern: str) -> list[tuple[str, str]]:
        return self._take(re.compile(pattern))

    def _places(self) -> list[tuple[int, str]]:
        first = [(int(i), place) for place, i in self._taken(rf"^{PLACE} (?:is|there is|you can see) <(\d)>")]
        then = [(int(i), place) for i, place in self._taken(rf"<(\d)>(?: is| sits)? {PLACE}\b")]
        return [(i, place.replace("middle", "center")) for i, place in first + then]


def _fits(mention: tuple, one) -> bool:
    return all(word in (None, own) for word, own in zip(mention, (one.size, one.color, one.shape), strict=True))


def _stand(relation: str, first: list, second: list) -> bool:
    return any(relation_is_true(relation, a, b) for a in first for b in second if a is not b)


def _place_of(one) -> str:
    column = "left" if one.x < 1 / 3 else "right" if one.x > 2 / 3 else ""
    row = "top" if one.y < 1 / 3 else "bottom" if one.y > 2 / 3 else ""
    return f"{row} {column}".strip() or "center"
