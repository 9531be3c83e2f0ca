"""Captions of the drawn world are true and complete, foils are false in one fact, by an independent reader."""

import itertools
import re
from collections import Counter

import pytest

from tests.support.scene_truth import MENTION, RELATION, is_true, relation_is_true
from vladva_clip.scenes import (
    COLORS,
    FOIL_KINDS,
    HELD_OUT_PAIRS,
    PLACE_PHRASES,
    SHAPES,
    SIZES,
    SPLITS,
    TRIPLE_KINDS,
    Scene,
    family,
    foils,
    holds,
    long_caption,
    main_relation,
    one_word_answers,
    scenes,
    short_captions,
    triples,
    winoground,
)

SAMPLE = [drawn for split in SPLITS for drawn in scenes(split, 0, 60)]


def test_short_captions_are_five_true_different_and_short():
    for drawn in SAMPLE:
        captions = short_captions(drawn)
        assert len(captions) == len(set(captions)) == 5
        assert all(len(re.findall(r"\w+|[^\w\s]", caption)) < 30 for caption in captions)
        assert all(is_true(caption, drawn) for caption in captions), captions


def test_every_short_caption_names_every_object():
    for drawn in SAMPLE:
        for caption in short_captions(drawn):
            assert {match.groups()[1:] for match in MENTION.finditer(caption)} == drawn.pairs


def test_short_captions_are_false_of_the_other_members_of_the_family():
    for split, number in itertools.product(SPLITS, range(30)):
        members = family(split, number)
        for drawn, other in itertools.permutations(members[:2] if split == "heldout" else members[:3], 2):
            wrong = [caption for caption in short_captions(drawn) if is_true(caption, other)]
            assert not wrong, (wrong, drawn, other)


def test_long_captions_are_true_complete_and_of_the_right_length():
    for drawn in SAMPLE:
        caption = long_caption(drawn)
        assert is_true(caption, drawn), caption
        assert 30 <= len(re.findall(r"\w+|[^\w\s]", caption)) <= 100
        listed = caption.split(". ")[1]
        for o in drawn.objects:
            assert f"{o.size} {o.color} {o.shape} {PLACE_PHRASES[o.place]}" in listed
        assert drawn.background.kind in caption and RELATION.search(caption)


@pytest.mark.parametrize("kind", FOIL_KINDS)
def test_foils_are_false_and_their_captions_true(kind):
    for drawn in SAMPLE:
        caption, foil = foils(drawn)[kind]
        assert is_true(caption, drawn) and not is_true(foil, drawn), (caption, foil)


def test_foils_differ_as_their_kind_says():
    for drawn in SAMPLE:
        difference = {kind: _difference(*pair) for kind, pair in foils(drawn).items()}
        assert all(word in SHAPES for word in difference["replace_obj"][1])
        assert all(word in COLORS or word in ("a", "an") for word in difference["replace_att"][1])
        assert set(difference["replace_rel"][1]) <= {"left", "right", "above", "below", "over", "under"}
        assert difference["swap_obj"] == difference["swap_att"] == ([], [])
        assert not difference["add_obj"][0] and set(difference["add_obj"][1]) & set(SHAPES)
        assert set(difference["add_att"][1]) & set(SIZES)


def _difference(caption, foil):
    """Words only in the caption and words only in the foil, counted."""
    first, second = (Counter(re.findall(r"\w+", text)) for text in (caption, foil))
    return list((first - second).elements()), list((second - first).elements())


@pytest.mark.parametrize("kind", TRIPLE_KINDS)
def test_triples_are_two_true_paraphrases_and_a_false_caption(kind):
    for drawn in SAMPLE:
        caption, paraphrase, negative = triples(drawn)[kind]
        assert caption != paraphrase
        assert is_true(caption, drawn) and is_true(paraphrase, drawn) and not is_true(negative, drawn)


@pytest.mark.parametrize("split", SPLITS)
def test_winoground_captions_share_their_words_and_fit_one_scene_each(split):
    for number in range(40):
        *drawn, first, second = winoground(split, number)
        assert _difference(first, second) == ([], [])
        truth = [[is_true(caption, one) for one in drawn] for caption in (first, second)]
        assert truth == [[True, False], [False, True]]


def test_foils_of_training_scenes_name_no_held_out_pair():
    for drawn in SAMPLE[:120]:
        for caption in itertools.chain(*foils(drawn).values(), *triples(drawn).values()):
            assert not {match.groups()[1:] for match in MENTION.finditer(caption)} & HELD_OUT_PAIRS


def test_relations_hold_one_way_only():
    for drawn in SAMPLE[:100]:
        for a, b in itertools.permutations(drawn.objects, 2):
            relation = main_relation(a, b)
            assert holds(relation, a, b) and not holds(relation, b, a)
            assert relation_is_true(relation, a, b)


def test_a_scene_by_hand_says_what_it_was_told():
    drawn = Scene.of([("circle", "red", "left"), ("square", "blue", "right", "small")])
    assert is_true("a red circle left of a small blue square", drawn)
    assert not is_true("a blue square left of a red circle", drawn)
    assert set(foils(drawn)) == set(FOIL_KINDS)
    assert drawn == Scene.of([("circle", "red", "left"), ("square", "blue", "right", "small")])
    assert drawn != Scene.of([("circle", "red", "left"), ("square", "blue", "right", "small")], seed=1)


def test_foils_that_a_scene_does_not_allow_are_absent():
    drawn = Scene.of([("circle", "red", "left"), ("square", "red", "right")])
    assert set(FOIL_KINDS) - set(foils(drawn)) == {"swap_att"}


def test_captions_use_an_before_orange_only():
    for drawn in SAMPLE:
        for caption in (*short_captions(drawn), long_caption(drawn)):
            assert not re.search(r"\ba orange|\ban (?!orange)", caption)


def test_one_word_answers_are_the_scenes_colors_and_shapes():
    drawn = Scene.of([("square", "blue", "right"), ("circle", "red", "left")])
    assert one_word_answers(drawn) == ["red", "circle", "blue", "square"]
