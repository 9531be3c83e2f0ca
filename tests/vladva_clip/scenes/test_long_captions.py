"""Long captions of the varied world are true, complete and readable for `claims`."""

import random
import re

import pytest

from tests.support.scene_truth import is_true
from vladva_clip.scenes import (
    CLAIM_KINDS,
    COLORS,
    NUMBERS,
    PLACE_PHRASES,
    SHAPES,
    SIZES,
    SPLITS,
    Scene,
    claim_accuracy,
    claims,
    holds,
    long_caption,
    naming_accuracy,
    sample_look,
    scenes,
)

SAMPLE = [drawn for style in ("varied", "unseen") for split in SPLITS for drawn in scenes(split, 0, 120, style)]
HORIZONTAL = re.compile(r"left of|left than|right of|right than")
VERTICAL = re.compile(r"above|over|higher than|below|under|beneath|lower than")


@pytest.mark.parametrize("style", ["classic", "varied", "unseen"])
@pytest.mark.parametrize("split", SPLITS)
def test_all_claims_of_true_captions_are_true(style, split):
    drawn = scenes(split, 0, 96, style)
    captions = [long_caption(one) for one in drawn]
    assert claim_accuracy(captions, drawn) == dict.fromkeys(CLAIM_KINDS, 1.0)
    assert naming_accuracy(drawn, captions) == 1


def in_old_words(caption: str) -> str:
    """The caption in the words of the reader of classic captions."""
    caption = re.sub(r"further (left|right) than", r"\1 of", caption)
    return caption.replace("higher than", "above").replace("lower than", "below").replace("beneath", "below")


def test_long_captions_are_true_complete_and_of_the_right_length():
    for drawn in SAMPLE:
        caption = long_caption(drawn)
        if len(drawn.objects) > 1:
            assert is_true(in_old_words(caption), drawn), caption
        assert 30 <= len(re.findall(r"\w+|[^\w\s]", caption)) <= 100
        listed = caption.split(". ")[1].lower()
        assert all(f"{o.size} {o.color} {o.shape} {PLACE_PHRASES[o.place]}" in listed for o in drawn.objects)
        assert f"{drawn.background.kind} background" in caption
        assert NUMBERS[len(drawn.objects)] in caption.lower().split(".")[0].split()


def test_further_sentences_on_a_single_object_say_nothing_else_of_it():
    vocabulary = {*COLORS, *SHAPES, *SIZES, "top", "bottom", "left", "right", "center"}
    single = [drawn for drawn in SAMPLE if len(drawn.objects) == 1]
    assert len(single) > 100
    for drawn in single:
        (one,) = drawn.objects
        own = {one.color, one.shape, one.size, *one.place.split()}
        assert set(re.findall(r"\w+", long_caption(drawn))) & vocabulary == own


def test_relations_are_told_on_both_axes_where_both_hold():
    on_both = 0
    for drawn in SAMPLE:
        caption = " ".join(long_caption(drawn).split(". ")[2:])
        pairs = [(a, b) for a in drawn.objects for b in drawn.objects]
        for pattern, names in ((HORIZONTAL, ("left of", "right of")), (VERTICAL, ("above", "below"))):
            possible = any(holds(name, a, b) for a, b in pairs for name in names)
            assert bool(pattern.search(caption)) == possible, caption
        on_both += bool(HORIZONTAL.search(caption) and VERTICAL.search(caption))
        assert claims(caption, drawn)["relations"][0] <= 3
    assert on_both > len(SAMPLE) // 3


def test_further_relation_phrases_and_verbs_are_read():
    drawn = Scene.of([("circle", "red", "left"), ("square", "blue", "top right")])
    for sentence in (
        "The red circle is further left than the blue square.",
        "The red circle sits lower than the blue square.",
        "The blue square stands higher than the red circle.",
    ):
        assert claims(sentence, drawn)["relations"] == (1, 1)
    assert claims("The red circle stands higher than the blue square.", drawn)["relations"] == (0, 1)
    assert claims("There is one shape.", drawn)["counts"] == (0, 1)


def test_scenes_by_hand_can_have_a_look():
    objects = [("circle", "red", "left"), ("square", "blue", "top right")]
    look = sample_look(random.Random(4), "unseen")
    drawn = Scene.of(objects, look=look)
    assert drawn.style == "unseen" and drawn.look == look
    assert claim_accuracy([long_caption(drawn)], [drawn]) == dict.fromkeys(CLAIM_KINDS, 1.0)
