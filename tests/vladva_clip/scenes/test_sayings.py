"""Sayings claim what they say: an independent reader of the text agrees on every scene of a family."""

import re
from collections import Counter, defaultdict

import pytest

from tests.support.saying_truth import Reading
from vladva_clip.scenes import (
    SINGLE_MEMBERS,
    SPLITS,
    VARIED_MEMBERS,
    Saying,
    Scene,
    all_wordings,
    facts,
    false_sayings,
    family,
    hard_negatives,
    placed_captions,
    placed_sayings,
    scenes,
    short_captions,
    short_sayings,
)

STYLES = ("varied", "unseen")
FAMILIES = [family(split, number, style) for style in STYLES for split in SPLITS for number in range(12)]
CLASSIC = [family(split, number) for split in SPLITS for number in range(12)]
LENGTH = re.compile(r"\w+|[^\w\s]")


def test_every_saying_is_understood_by_the_reader():
    for members in FAMILIES:
        for drawn in members:
            for text in (*short_captions(drawn), *hard_negatives(drawn)):
                reading = Reading(text)
                assert not reading.leftovers and (reading.mentions or reading.counts), (text, reading.rest)


@pytest.mark.parametrize("families", [FAMILIES, CLASSIC], ids=["varied", "classic"])
def test_claims_decide_as_the_reader_of_the_text_does(families):
    verdicts = Counter()
    for members in families:
        readings = [(saying, Reading(saying.text)) for drawn in members for saying in short_sayings(drawn)]
        for drawn in members:
            known = facts(drawn)
            for saying, reading in readings:
                assert (saying.claims <= known) == reading.true_of(drawn), (saying, drawn)
                verdicts[reading.true_of(drawn)] += 1
    assert min(verdicts[True], verdicts[False]) > 0.2 * verdicts.total()


def test_equal_texts_claim_the_same():
    """Whoever keeps claims by their text, as records and suites do, loses none."""
    found = defaultdict(set)
    for drawn in (drawn for members in (*FAMILIES, *CLASSIC) for drawn in members):
        false = [] if drawn.style == "classic" else false_sayings(drawn)
        for saying in (*short_sayings(drawn), *placed_sayings(drawn), *false):
            found[saying.text].add(saying.claims)
    assert [text for text, claims in found.items() if len(claims) > 1] == []


@pytest.mark.parametrize("style", ["classic", *STYLES])
def test_sayings_are_five_true_different_and_short(style):
    for split in SPLITS:
        for drawn in scenes(split, 0, 120, style):
            sayings = short_sayings(drawn)
            assert all(saying.true_of(drawn) and saying.claims for saying in sayings)
            assert len(sayings) == len({saying.text for saying in sayings}) == 5
            assert all(len(LENGTH.findall(saying.text)) < 30 for saying in sayings)
            assert [saying.text for saying in sayings] == short_captions(drawn)


def test_a_scene_says_the_same_again_and_others_say_it_differently():
    drawn = FAMILIES[0][0]
    assert short_sayings(drawn) == short_sayings(family("train", 0, "varied")[0])
    starts = Counter(text.split()[0] for members in FAMILIES for one in members for text in short_captions(one))
    assert {"a", "the", "there", "with", "you", "left", "in", "three", "red", "besides"} <= set(starts)


def test_every_difference_within_a_family_is_told_by_a_good_share_of_the_sayings():
    deciding = defaultdict(list)
    for members in FAMILIES:
        names = SINGLE_MEMBERS if len(members[0].objects) == 1 else VARIED_MEMBERS
        for name, drawn in list(zip(names, members, strict=True))[1:]:
            sayings = [*short_sayings(drawn), *short_sayings(members[0])]
            both = facts(drawn) & facts(members[0])
            deciding[names, name].append(sum(not saying.claims <= both for saying in sayings) / 10)
    assert len(deciding) == 14
    assert min(sum(shares) / len(shares) for shares in deciding.values()) >= 0.15


def test_two_of_five_sayings_relate_the_focus_pair_and_one_tells_sizes():
    for drawn in (drawn for members in FAMILIES for drawn in members if len(drawn.objects) > 1):
        focus = {(one.color, one.shape) for one in drawn.objects[:2]}
        readings = [Reading(text) for text in short_captions(drawn)]
        related = [
            reading
            for reading in readings
            for i, _, j in reading.relations
            if {reading.mentions[i][1:], reading.mentions[j][1:]} == focus
        ]
        assert len(related) >= 2
        assert any(size for reading in readings for size, _, _ in reading.mentions)
        assert any(reading.places for reading in readings)


def test_placed_sayings_are_the_placed_captions():
    for members in (*FAMILIES[:12], *CLASSIC[:3]):
        for drawn in members:
            sayings = placed_sayings(drawn)
            assert [saying.text for saying in sayings] == placed_captions(drawn)
            for other in members:
                assert [one.true_of(other) for one in sayings] == [Reading(one.text).true_of(other) for one in sayings]


def test_all_words_of_sayings_are_in_the_wordings_or_the_vocabulary():
    known = {word for wording in all_wordings() for word in wording.split()}
    world = {word for members in FAMILIES for one in members for o in one.objects for word in _words(o)}
    backgrounds = {one[0].background.kind for one in FAMILIES}
    for members in FAMILIES:
        for text in (text for one in members for text in (*short_captions(one), *hard_negatives(one))):
            assert set(re.findall(r"[a-z]+", text)) <= known | world | backgrounds | {"a", "an", "the"}, text


def _words(one) -> set[str]:
    return {one.color, one.shape, one.size, *one.place.split()}


def test_facts_of_a_scene_by_hand():
    drawn = Scene.of([("circle", "red", "top left", "small"), ("square", "blue", "right")])
    known = facts(drawn)
    assert {"there is small red circle", "there is red", "there is small circle", "red circle at top left"} <= known
    assert {"red circle left of blue square", "red above blue", "square below circle", "count 2"} <= known
    assert f"background {drawn.background.kind}" in known
    assert not {"there is large red circle", "red circle at top", "blue square left of red circle", "count 3"} & known
    assert len(known) == 2 + 2 * (5 + 3) + 2 * 2 * 3
    assert Saying("red", frozenset({"there is red"})).true_of(drawn)
    assert not Saying("three", frozenset({"count 3"})).true_of(drawn)
