"""Who reads captions of the varied world without looking can't tell which are true."""

import math
import re
from collections import Counter

import pytest

from vladva_clip.scenes import COLORS, NUMBERS, SHAPES, evaluation_foils, family, foils, hard_negatives, short_captions

FAMILIES = [family("train", number, "varied") for number in range(240)]
SCENES = [members[number % 8] for number, members in enumerate(FAMILIES)]
ADDING = ("add_obj", "add_att", "add_obj_present")
"""The foil is the caption with one thing more, as in SugarCrepe: the longer one is false."""


def skeleton(text: str) -> Counter:
    """The words, with all colors as one and all shapes as one, single and in pairs, and how much is named."""
    words = [
        "color" if word in COLORS else "shape" if word in SHAPES else word for word in re.findall(r"\w+|[^\w\s]", text)
    ]
    named = f"{words.count('small') + words.count('large')} sizes of {words.count('shape')} shapes"
    return Counter({*words, *zip(words, words[1:], strict=False), named})


def named(text: str) -> tuple[int, int]:
    words = re.findall(r"\w+", text)
    return sum(word in ("small", "large") for word in words), sum(word in SHAPES for word in words)


def guesser(true: list[str], false: list[str]):
    """How much more a text looks like the true ones than like the false ones, by its words (naive Bayes)."""
    counts = [sum(map(skeleton, texts), Counter()) for texts in (true, false)]
    return lambda text: sum(
        math.log((counts[0][part] + 1) / (len(true) + 2)) - math.log((counts[1][part] + 1) / (len(false) + 2))
        for part in skeleton(text)
    )


def test_hard_negatives_look_like_captions():
    """The chance that a caption looks truer than a hard negative, seen from the words."""
    true, false = ([text for one in SCENES for text in texts(one)] for texts in (short_captions, hard_negatives))
    score = guesser(true[::2], false[::2])
    scores = [[score(text) for text in texts[1::2]] for texts in (true, false)]
    wins = sum((a > b) + (a == b) / 2 for a in scores[0] for b in scores[1])
    assert wins / (len(scores[0]) * len(scores[1])) < 0.7


def test_no_number_of_objects_and_sizes_is_named_by_false_captions_only():
    true, false = (
        Counter(named(t) for one in SCENES for t in texts(one)) for texts in (short_captions, hard_negatives)
    )
    for form, count in false.items():
        assert count < 0.005 * false.total() or true[form] / true.total() > 0.1 * count / false.total(), form


@pytest.mark.parametrize("kind", [*foils(FAMILIES[0][0]), *evaluation_foils(FAMILIES[0][0])])
def test_the_wording_of_a_foil_tells_nothing(kind):
    offers = [foils(one).get(kind) or evaluation_foils(one).get(kind) for members in FAMILIES for one in members[::2]]
    offers = [
        (true, false if isinstance(false, str) else false[number % len(false)])
        for number, (true, false) in enumerate(filter(None, offers))
    ]
    score = guesser(*(list(texts) for texts in zip(*offers[::2], strict=True)))
    right = [(score(true) > score(false)) + (score(true) == score(false)) / 2 for true, false in offers[1::2]]
    assert sum(right) / len(right) > 0.95 if kind in ADDING else abs(sum(right) / len(right) - 0.5) < 0.08


def test_of_two_numbers_of_objects_each_is_the_true_one_as_often():
    word = re.compile(rf"\b({'|'.join(NUMBERS.values())}) (?:object|shape)s?\b")
    pairs = Counter()
    for one in (one for members in FAMILIES for one in members):
        true, (false,) = evaluation_foils(one)["replace_count"]
        pairs[word.search(true)[1], word.search(false)[1]] += 1
    assert len(pairs) == 12
    for (true, false), count in pairs.items():
        assert 0.6 < count / pairs[false, true] < 1.7, (true, false)
