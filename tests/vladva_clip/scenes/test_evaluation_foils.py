"""The foils beyond the seven kinds: false, equally worded, and hard for who knows less than their kind asks."""

import re

import pytest

from tests.support.scene_truth import MENTION, RELATION, is_true
from vladva_clip.scenes import (
    COUNTS,
    EVALUATION_KINDS,
    EVALUATION_TRIPLES,
    RELATION_PHRASES,
    SIZES,
    SPLITS,
    Scene,
    evaluation_foils,
    evaluation_triples,
    evaluation_winoground,
    foils,
    scenes,
)

SAMPLE = [drawn for split in SPLITS for drawn in scenes(split, 0, 60)]
AXIS = {phrase: name in ("above", "below") for name, phrases in RELATION_PHRASES.items() for phrase in phrases}


def truth(caption: str, drawn: Scene) -> bool:
    """What the independent reader says, and whether the number of objects is right where one is given."""
    count = re.search("|".join(COUNTS.values()), caption)
    return is_true(caption, drawn) and (count is None or count.group() == COUNTS[len(drawn.objects)])


@pytest.mark.parametrize("kind", EVALUATION_KINDS)
def test_the_caption_is_true_and_all_beside_it_are_false(kind):
    offered = [(drawn, evaluation_foils(drawn)[kind]) for drawn in SAMPLE if kind in evaluation_foils(drawn)]
    assert len(offered) >= len(SAMPLE) // 4
    for drawn, (caption, false) in offered:
        assert truth(caption, drawn), caption
        assert len(false) == (3 if kind == "relation_of_four" else 1)
        assert not any(truth(one, drawn) for one in false), (caption, false)


def relation_of(caption: str) -> str:
    return RELATION.search(caption).group()


def test_relations_are_of_the_other_axis_or_all_four():
    for drawn in SAMPLE:
        found = evaluation_foils(drawn)
        caption, (foil,) = found["replace_rel_axis"]
        assert AXIS[relation_of(caption)] != AXIS[relation_of(foil)]
        if "relation_of_four" in found:
            caption, false = found["relation_of_four"]
            assert sorted(AXIS[relation_of(one)] for one in (caption, *false)) == [False, False, True, True]


def test_sizes_alone_differ_and_as_many_words_are_said():
    for drawn in SAMPLE:
        found = evaluation_foils(drawn)
        for kind in {"replace_size", "swap_size"} & set(found):
            caption, (foil,) = found[kind]
            pairs = zip(caption.split(), foil.split(), strict=True)
            assert {word for pair in pairs if pair[0] != pair[1] for word in pair} == set(SIZES)
        assert found["replace_size"][1][0] == foils(drawn)["add_att"][1]


def test_an_added_object_has_the_words_of_the_picture():
    for drawn in SAMPLE:
        caption, (foil,) = evaluation_foils(drawn)["add_obj_present"]
        words = {word for pair in drawn.pairs for word in pair}
        assert {word for match in MENTION.finditer(foil) for word in match.groups()[1:]} <= words
        assert len(MENTION.findall(foil)) == len(MENTION.findall(caption)) + 1


def test_kinds_that_a_scene_does_not_allow_are_absent():
    diagonal = Scene.of([("circle", "red", "top left", "small"), ("circle", "blue", "bottom right", "small")])
    absent = {"relation_of_four", "swap_size", "add_obj_present"}
    assert set(evaluation_foils(diagonal)) == set(EVALUATION_KINDS) - absent
    assert set(evaluation_triples(diagonal)) == {"replace_rel_axis", "replace_size"}
    assert evaluation_winoground(diagonal) is None


def subject_of(caption: str) -> tuple[str, ...]:
    return MENTION.findall(caption[: RELATION.search(caption).start()])[-1]


@pytest.mark.parametrize("kind", EVALUATION_TRIPLES)
def test_triples_are_the_foils_with_a_paraphrase(kind):
    for drawn in SAMPLE:
        if kind in (found := evaluation_triples(drawn)):
            caption, paraphrase, negative = found[kind]
            assert (caption, (negative,)) == evaluation_foils(drawn)[kind]
            assert paraphrase != caption and is_true(paraphrase, drawn)
            assert subject_of(paraphrase) != subject_of(caption)  # from the other object's side


def test_winoground_by_axis_fits_one_scene_each():
    found = [quadruple for drawn in SAMPLE if (quadruple := evaluation_winoground(drawn))]
    assert len(found) >= len(SAMPLE) // 4
    for first, second, *captions in found:
        assert [[is_true(caption, one) for one in (first, second)] for caption in captions] == [
            [True, False],
            [False, True],
        ]
        assert AXIS[relation_of(captions[0])] != AXIS[relation_of(captions[1])]
