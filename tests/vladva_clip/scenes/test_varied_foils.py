"""False captions of the varied world are false and their captions true, by a reader of their text."""

import re

import pytest

from tests.support.saying_truth import OBJECT, Reading
from tests.support.scene_truth import is_true
from vladva_clip.scenes import (
    EVALUATION_KINDS,
    EVALUATION_TRIPLES,
    FOIL_KINDS,
    HELD_OUT_PAIRS,
    NUMBERS,
    SPLITS,
    TRIPLE_KINDS,
    evaluation_foils,
    evaluation_triples,
    evaluation_winoground,
    facts,
    false_sayings,
    focus_statement,
    foils,
    hard_negatives,
    scene,
    scenes,
    triples,
    winoground,
)

SAMPLE = [drawn for style in ("varied", "unseen") for split in SPLITS for drawn in scenes(split, 24, 32, style)]
ONE = [drawn for drawn in SAMPLE if len(drawn.objects) == 1]
MORE = [drawn for drawn in SAMPLE if len(drawn.objects) > 1]
SINGLE_KINDS = ("replace_size", "replace_place", "replace_count")


def truth(text: str, drawn) -> bool:
    reading = Reading(text)
    assert reading.leftovers <= {"picture", "you", "see", "this", "has"}, (text, reading.rest)
    return reading.true_of(drawn)


def test_hard_negatives_are_false_in_one_way_each():
    for drawn in SAMPLE:
        negatives = hard_negatives(drawn)
        assert not any(truth(text, drawn) for text in negatives), drawn
        assert len(negatives) >= (6 if len(drawn.objects) == 1 else 10)
        assert len(set(negatives)) >= len(negatives) - 1


def test_claims_of_false_sayings_decide_as_their_text_does():
    verdicts = []
    for start in range(0, len(SAMPLE), 8):
        for saying in false_sayings(SAMPLE[start]):
            for other in SAMPLE[start : start + 8]:
                verdicts.append(saying.claims <= facts(other))
                assert verdicts[-1] == truth(saying.text, other), (saying, other)
    assert 0.03 < sum(verdicts) / len(verdicts) < 0.5


def test_hard_negatives_of_classic_scenes_are_their_foils():
    for drawn in scenes("train", 0, 20):
        found = hard_negatives(drawn)
        assert {foil for _, foil in foils(drawn).values()} <= set(found)
        assert {one for _, false in evaluation_foils(drawn).values() for one in false} <= set(found)
        assert len(found) == len(set(found))


@pytest.mark.parametrize("kind", FOIL_KINDS)
def test_foils_and_triples_hold_what_they_promise(kind):
    offered = [drawn for drawn in SAMPLE if kind in foils(drawn)]
    assert len(offered) >= len(MORE)
    for drawn in offered:
        caption, foil = foils(drawn)[kind]
        assert truth(caption, drawn) and not truth(foil, drawn)
        if kind in TRIPLE_KINDS:
            caption, paraphrase, negative = triples(drawn)[kind]
            assert caption != paraphrase
            assert truth(caption, drawn) and truth(paraphrase, drawn) and not truth(negative, drawn)


@pytest.mark.parametrize("kind", EVALUATION_KINDS)
def test_evaluation_foils_and_triples_hold_what_they_promise(kind):
    offered = [drawn for drawn in SAMPLE if kind in evaluation_foils(drawn)]
    assert len(offered) >= len(SAMPLE) // 4
    for drawn in offered:
        caption, false = evaluation_foils(drawn)[kind]
        assert truth(caption, drawn) and not any(truth(one, drawn) for one in false)
        if kind in EVALUATION_TRIPLES:
            caption, paraphrase, negative = evaluation_triples(drawn)[kind]
            assert truth(caption, drawn) and truth(paraphrase, drawn) and not truth(negative, drawn)
            assert caption != paraphrase and negative == false[0]


def test_one_object_has_the_kinds_that_one_object_allows():
    for drawn in ONE:
        assert set(foils(drawn)) == {"replace_obj", "replace_att", "add_obj", "add_att"}
        assert set(triples(drawn)) == {"replace_obj", "replace_att"}
        assert tuple(evaluation_foils(drawn)) == SINGLE_KINDS
        assert set(evaluation_triples(drawn)) == {"replace_size"}
        assert evaluation_winoground(drawn) is None
        with pytest.raises(ValueError, match="has one object"):
            focus_statement(drawn)
    assert len(ONE) == 56


def test_false_counts_name_every_other_number():
    false = [evaluation_foils(drawn)["replace_count"] for drawn in SAMPLE]
    said = {word for caption, (foil,) in false for word in foil.split() if word in NUMBERS.values()}
    assert said == set(NUMBERS.values())
    assert not any("one objects" in foil or "one shapes" in foil for _, (foil,) in false)


def test_winoground_quadruples_fit_one_scene_each():
    for split in SPLITS:
        for number in range(30):
            found = winoground(split, number, "varied")
            assert (found is None) == (number % 6 == 5)
            if found:
                *drawn, first, second = found
                verdicts = [[is_true(text, one) for one in drawn] for text in (first, second)]
                assert verdicts == [[True, False], [False, True]]
                words = (sorted(re.findall(r"\w+", text.replace("an ", "a "))) for text in (first, second))
                assert next(words) == next(words)


def test_evaluation_winoground_mirrors_the_same_objects_in_the_same_look():
    found = [quadruple for drawn in MORE if (quadruple := evaluation_winoground(drawn))]
    assert len(found) > len(MORE) // 3
    for first, second, *captions in found:
        assert [[is_true(text, one) for one in (first, second)] for text in captions] == [[True, False], [False, True]]
        assert (first.look, first.background) == (second.look, second.background)
        assert [o.rgb for o in first.objects] == [o.rgb for o in second.objects]
        assert all({min(o.x, 1 - o.x) for o in (a, b)} for a, b in zip(first.objects, second.objects, strict=True))


def test_false_captions_of_trained_scenes_name_no_held_out_pair():
    for split in ("train", "validation", "test"):
        for index in range(120):
            drawn = scene(split, index, "varied")
            for text in (*hard_negatives(drawn), *(foil for _, foil in foils(drawn).values())):
                named = {(color, shape) for _, _, color, shape, _ in OBJECT.findall(text)}
                assert not named & HELD_OUT_PAIRS, text
