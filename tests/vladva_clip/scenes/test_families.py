"""Members of a varied family differ from the first in the one fact that their name promises, in words and in pixels."""

from collections import Counter

import numpy as np
import pytest

from vladva_clip.scenes import (
    HELD_OUT_PAIRS,
    PLACES,
    RELATIONS,
    SINGLE_MEMBERS,
    SPLITS,
    STYLES,
    VARIED_MEMBERS,
    crowd,
    facts,
    family,
    family_size,
    holds,
    main_relation,
    num_objects,
    scene,
    scenes,
)

TRAINED = ("train", "validation", "test")
HORIZONTAL = ("left of", "right of")
SEVERAL = {
    split: [members for number in range(60) if len((members := family(split, number, "varied"))[0].objects) > 1]
    for split in SPLITS
}
SINGLE = {split: [family(split, number, "varied") for number in range(5, 90, 6)] for split in SPLITS}
ALL_FAMILIES = [one for groups in (SEVERAL, SINGLE) for families in groups.values() for one in families]


def words(drawn) -> list[tuple[str, str, str, str]]:
    return [(o.shape, o.color, o.place, o.size) for o in drawn.objects]


def trained(name: str):
    """(first member, the member of that name) of all families of two objects and more without held-out pairs."""
    index = VARIED_MEMBERS.index(name)
    return [(members[0], members[index]) for split in TRAINED for members in SEVERAL[split]]


def test_sizes_of_families_and_their_scenes():
    assert {style: family_size(style) for style in STYLES} == {"classic": 4, "varied": 8, "unseen": 8}
    assert len(VARIED_MEMBERS) == len(SINGLE_MEMBERS) == 8
    assert scenes("test", 13, 9, "varied") == [scene("test", index, "varied") for index in range(13, 22)]
    assert family("test", 3, "unseen") == scenes("test", 24, 8, "unseen")
    assert {one.style for one in family("test", 3, "unseen")} == {"unseen"}


def test_all_members_differ_and_share_background_and_look():
    for members in ALL_FAMILIES:
        assert len({tuple(words(one)) for one in members}) == len({one.seed for one in members}) == 8
        assert len({(one.background, one.look) for one in members}) == 1
        for one in members:
            for values in zip(*words(one), strict=True):
                assert len(set(values[: len(one.objects)])) == len(one.objects) or set(values) <= {"small", "large"}


def test_unchanged_objects_are_the_same_to_the_last_digit():
    for members in ALL_FAMILIES:
        first = dict(zip(words(members[0]), members[0].objects, strict=True))
        for one in members[1:]:
            kept = {word: o for word, o in zip(words(one), one.objects, strict=True) if word in first}
            assert all(o == first[word] for word, o in kept.items())
            assert len(kept) >= len(one.objects) - 2


def test_pixels_differ_only_where_an_object_changed():
    members = next(one for one in SEVERAL["train"] if not one[0].look.is_classic and len(one[0].objects) == 2)
    first, larger = (np.asarray(members[index].draw(64)).astype(int) for index in (0, 4))
    rows, columns = np.nonzero(np.abs(first - larger).max(axis=2) > 24)
    changed = members[0].objects[0]
    assert len(rows) > 0
    assert (
        abs(rows.mean() / first.shape[0] - changed.y) < 0.2 and abs(columns.mean() / first.shape[1] - changed.x) < 0.2
    )


def test_colors_and_places_are_swapped():
    for first, other in trained("colors"):
        (shape, color, *rest), (shape2, color2, *rest2), *others = words(first)
        assert words(other) == [(shape, color2, *rest), (shape2, color, *rest2), *others]
    for first, other in trained("places"):
        (shape, color, place, size), (shape2, color2, place2, size2), *others = words(first)
        assert words(other) == [(shape, color, place2, size), (shape2, color2, place, size2), *others]
        assert main_relation(*other.objects[:2]) == RELATIONS[main_relation(*first.objects[:2])]


def test_the_axis_changes_by_a_move_of_the_second_object():
    for split in SPLITS:
        for members in SEVERAL[split]:
            first, other = members[0], members[3]
            before, after = (main_relation(*one.objects[:2]) for one in (first, other))
            assert (before in HORIZONTAL) != (after in HORIZONTAL)
            assert not holds(before, *other.objects[:2])
            changed = [(a, b) for a, b in zip(words(first), words(other), strict=True) if a != b]
            assert len(changed) == 1 and changed[0][0] == words(first)[1]
            assert [a[:2] + a[3:] for a, _ in changed] == [b[:2] + b[3:] for _, b in changed]


@pytest.mark.parametrize(("name", "field"), [("size", 3), ("place", 2)])
def test_one_word_of_one_object_changes(name, field):
    for first, other in trained(name):
        changed = [(a, b) for a, b in zip(words(first), words(other), strict=True) if a != b]
        assert len(changed) == 1
        assert [a != b for a, b in zip(*changed[0], strict=True)] == [index == field for index in range(4)]


def test_most_moved_objects_keep_their_relations():
    focus, all_of_two = [], []
    for first, other in trained("place"):
        same = {r: holds(r, *first.objects[:2]) for r in RELATIONS} == {
            r: holds(r, *other.objects[:2]) for r in RELATIONS
        }
        focus.append(same)
        all_of_two += [same] * (len(first.objects) == 2)
    assert sum(focus) > 0.85 * len(focus)
    assert all(all_of_two)


def test_one_object_more_or_the_last_of_four_fewer():
    for first, other in trained("count"):
        if len(first.objects) == 4:
            assert other.objects == first.objects[:3]
        else:
            assert other.objects[:-1] == first.objects


def test_one_object_has_another_shape_or_color():
    kinds = Counter()
    for first, other in trained("object"):
        ((old, new),) = [(a, b) for a, b in zip(words(first), words(other), strict=True) if a != b]
        assert old[2:] == new[2:] and (old[0] == new[0]) != (old[1] == new[1])
        kinds[old[0] == new[0]] += 1
    assert min(kinds.values()) > 30


def test_single_objects_differ_as_their_names_say():
    expected = [(0, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 0, 1, 0), None, (1, 1, 0, 0)]
    for split in TRAINED:
        for members in SINGLE[split]:
            (first,) = words(members[0])
            for change, one in zip(expected, members, strict=True):
                if change is None:
                    assert len(one.objects) == 2 and one.objects[0] == members[0].objects[0]
                else:
                    assert tuple(int(a != b) for a, b in zip(first, *words(one), strict=True)) == change


def test_held_out_pairs_are_in_every_heldout_member_and_nowhere_else():
    for groups in (SEVERAL, SINGLE):
        assert all(one.pairs & HELD_OUT_PAIRS for members in groups["heldout"] for one in members)
        assert not any(one.pairs & HELD_OUT_PAIRS for s in TRAINED for members in groups[s] for one in members)
    for members in SINGLE["heldout"]:
        assert all({o.pair for o in one.objects} <= HELD_OUT_PAIRS for one in members if len(one.objects) == 1)


def test_the_members_of_heldout_families_that_would_lose_the_pair_change_one_color():
    replaced = 0
    for members in SEVERAL["heldout"]:
        changed = [(a, b) for a, b in zip(words(members[0]), words(members[1]), strict=True) if a != b]
        replaced += len(changed) == 1
        assert len(changed) in (1, 2)
        assert all(a[0] == b[0] and a[2:] == b[2:] for a, b in changed)
    assert replaced > 20


def test_relations_are_equally_frequent_and_two_thirds_of_the_focus_pairs_aligned():
    found, aligned = Counter(), []
    for number in range(600):
        first = family("train", number, "varied")[0]
        if len(first.objects) > 1:
            found[main_relation(*first.objects[:2])] += 1
            aligned.append(sum(any(holds(r, *first.objects[:2]) for r in axis) for axis in _AXES) == 1)
    assert min(found.values()) > 95 and max(found.values()) < 155
    assert 0.6 < sum(aligned) / len(aligned) < 0.9


_AXES = (HORIZONTAL, ("above", "below"))


def test_every_sixth_family_has_one_object_and_the_rest_two_to_four():
    counts = [num_objects("train", number, "varied") for number in range(120)]
    assert counts == [len(family("train", number, "varied")[0].objects) for number in range(120)]
    assert {count for number, count in enumerate(counts) if number % 6 == 5} == {1}
    assert {count for number, count in enumerate(counts) if number % 6 != 5} == {2, 3, 4}


def test_unseen_has_the_scenes_of_varied_in_another_look():
    for number in range(12):
        for seen, unseen in zip(*(family("test", number, style) for style in ("varied", "unseen")), strict=True):
            assert words(seen) == words(unseen) and seen.look != unseen.look
            assert {one for one in facts(seen) if "background" not in one} == {
                one for one in facts(unseen) if "background" not in one
            }


def test_splits_have_scenes_of_their_own():
    drawn = [one for split in TRAINED for one in scenes(split, 0, 80, "varied")]
    assert len({tuple(words(one)) for one in drawn}) > 0.97 * len(drawn)


def test_every_place_is_used_equally_often():
    places = Counter(o.place for number in range(200) for o in family("train", number, "varied")[0].objects)
    assert set(places) == set(PLACES) and min(places.values()) > 0.6 * max(places.values())


def test_crowds_come_in_every_style():
    assert {crowd(3, style).style for style in STYLES} == set(STYLES)
    assert words(crowd(3, "varied")) == words(crowd(3))


@pytest.mark.parametrize("call", [family_size, lambda style: family("train", 0, style), lambda style: crowd(0, style)])
def test_an_unknown_style_is_refused(call):
    with pytest.raises(ValueError, match="found style 'modern'.*classic"):
        call("modern")
