"""An independent reader of the drawn world's captions: regular expressions and coordinates, no library logic."""

import re

from vladva_clip.scenes import COLORS, SHAPES, Scene

MENTION = re.compile(rf"(?:(small|large) )?({'|'.join(COLORS)}) ({'|'.join(SHAPES)})")
RELATION = re.compile(r"(left of|right of|above|over|below|under)")
AXES = {
    "left of": ("x", -1),
    "right of": ("x", 1),
    "above": ("y", -1),
    "over": ("y", -1),
    "below": ("y", 1),
    "under": ("y", 1),
}


def is_true(caption: str, drawn: Scene) -> bool:
    """Whether every mention, relation and place of a caption fits the scene."""
    sentences = re.split(r"\. ", caption)
    return all(_sentence_is_true(sentence, drawn) for sentence in sentences)


def _sentence_is_true(sentence: str, drawn: Scene) -> bool:
    found = {match.start(): _find(match.groups(), drawn) for match in MENTION.finditer(sentence)}
    if None in found.values():
        return False
    relation = RELATION.search(sentence)
    if relation:
        before = [found[start] for start in found if start < relation.start()]
        after = [found[start] for start in found if start > relation.start()]
        return relation_is_true(relation.group(), before[-1], after[0])
    return all(_place_is_true(o, drawn) for o in _placed(sentence, drawn))


def _find(words, drawn):
    size, color, shape = words
    fitting = [o for o in drawn.objects if (o.color, o.shape) == (color, shape) and size in (None, o.size)]
    return fitting[0] if fitting else None


def relation_is_true(relation, first, second):
    axis, sign = AXES[relation]
    return sign * (getattr(first, axis) - getattr(second, axis)) > 0.2


def _placed(sentence, drawn):
    """(object, column word, row word) of every mention that a place follows."""
    parts = re.split(r", | and ", sentence)
    for part in parts:
        mention = MENTION.search(part)
        if mention:
            yield _find(mention.groups(), drawn), part[mention.end() :]


def _place_is_true(placed, drawn):
    scene_object, words = placed
    column = "left" if scene_object.x < 1 / 3 else "right" if scene_object.x > 2 / 3 else ""
    row = "top" if scene_object.y < 1 / 3 else "bottom" if scene_object.y > 2 / 3 else ""
    expected = {column, row} - {""} or {"center"}
    return set(re.findall(r"top|bottom|left|right|center", words)) == expected
