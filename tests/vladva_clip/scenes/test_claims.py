"""What a caption claims is counted, and what is left unsaid counts as false."""

import pytest

from vladva_clip.scenes import (
    CLAIM_KINDS,
    SPLITS,
    Scene,
    claim_accuracy,
    claims,
    long_caption,
    named_pairs,
    naming_accuracy,
    scenes,
)

SCENE = Scene.of([("circle", "red", "top left", "small"), ("square", "blue", "top right"), ("star", "cyan", "bottom")])
START = f"Three objects on a {SCENE.background.kind} background."
LIST = "A small red circle in the top left, a large blue square in the top right and a large cyan star at the bottom."
END = "The blue square is to the right of the red circle. The cyan star is below the blue square."


@pytest.mark.parametrize("split", SPLITS)
def test_all_claims_of_a_true_caption_are_true(split):
    drawn = scenes(split, 0, 100)
    assert claim_accuracy([long_caption(one) for one in drawn], drawn) == dict.fromkeys(CLAIM_KINDS, 1.0)


def test_a_whole_caption_by_hand():
    found = claims(f"{START} {LIST} {END}", SCENE)
    assert found == {"relations": (2, 2), "sizes": (3, 3), "places": (3, 3), "counts": (1, 1), "backgrounds": (1, 1)}


@pytest.mark.parametrize(
    ("kind", "true", "false", "left"),
    [
        ("relations", "to the right of the red", "left of the red", (1, 2)),
        ("relations", "is below", "is above", (1, 2)),
        ("relations", "The cyan star is", "The cyan square is", (1, 2)),
        ("sizes", "small red", "large red", (2, 3)),
        ("places", "at the bottom", "in the bottom right", (2, 3)),
        ("places", "in the top left", "at the top", (2, 3)),
        ("counts", "Three", "four", (0, 1)),
        ("backgrounds", f"{SCENE.background.kind} background", "golden background", (0, 1)),
    ],
)
def test_a_false_claim_is_counted_under_its_kind(kind, true, false, left):
    whole = f"{START} {LIST} {END}"
    assert true in whole
    assert claims(whole.replace(true, false), SCENE)[kind] == left


def test_silence_and_repetition_win_nothing():
    assert claims("", SCENE) == {
        "relations": (0, 2),
        "sizes": (0, 3),
        "places": (0, 3),
        "counts": (0, 1),
        "backgrounds": (0, 1),
    }
    once = "The blue square is right of the red circle."
    assert claims(" ".join([once] * 5), SCENE)["relations"] == (1, 2)
    both = f"{once} The blue square is left of the red circle. The blue square is below the red circle."
    assert claims(both, SCENE)["relations"] == (1, 3)


def test_named_pairs_are_read_off_a_caption():
    caption = "Two objects. A large red circle at the top and a small blue star on the left. The red circle is above."
    assert named_pairs(caption) == {("red", "circle"), ("blue", "star")}


def test_naming_is_right_when_exactly_the_objects_are_named():
    extra = f"{LIST} A white cross at the top."
    assert naming_accuracy([SCENE] * 4, [LIST, LIST.lower(), extra, START]) == 0.5
