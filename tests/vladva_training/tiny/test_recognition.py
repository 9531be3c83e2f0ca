"""Patches are labeled with what is drawn there, whatever the canvas."""

import math
from collections import Counter

import pytest
import torch

from vladva_clip.scenes import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES, Scene, crowd, scenes
from vladva_training.tiny.pixels import draw_pixels
from vladva_training.tiny.recognition import HEADS, MARGIN, center_of, patch_labels


def labels_of(drawn):
    return dict(zip(HEADS, patch_labels(drawn).reshape(len(HEADS), 8, 8), strict=True))


def test_patches_are_labeled_with_the_object_that_they_show():
    drawn = Scene.of([("circle", "red", "top left", "small"), ("star", "blue", "bottom")])
    labels = labels_of(drawn)
    assert (labels["color"][1, 1], labels["shape"][1, 1]) == (list(COLORS).index("red"), SHAPES.index("circle"))
    assert labels["size"][1, 1] == list(SIZES).index("small")
    assert (labels["shape"][6, 3:5] == SHAPES.index("star")).all()
    assert labels["place"][1, 1] == list(PLACES).index("top left")
    assert labels["place"][2, 7] == list(PLACES).index("top right")
    assert labels["place"][4, 4] == list(PLACES).index("center")
    assert labels["color"][4, 4] == len(COLORS) and labels["shape"][0, 7] == len(SHAPES)
    assert (labels["background"] == BACKGROUNDS.index(drawn.background.kind)).all()


def test_a_large_object_covers_more_patches_than_a_small_one():
    small, large = (Scene.of([("circle", "red", "top left", s), ("star", "blue", "right")]) for s in ("small", "large"))
    red = list(COLORS).index("red")
    assert 0 < (labels_of(small)["color"] == red).sum() < (labels_of(large)["color"] == red).sum()


@pytest.mark.parametrize("style", ["classic", "varied", "unseen"])
def test_every_object_has_a_patch(style):
    for drawn in [*scenes("train", 0, 80, style), *(crowd(number, style) for number in range(20))]:
        labels = labels_of(drawn)
        found = Counter(zip(labels["color"].flatten().tolist(), labels["shape"].flatten().tolist(), strict=True))
        for one in drawn.objects:
            assert found[list(COLORS).index(one.color), SHAPES.index(one.shape)] >= 1


def test_labels_stand_where_the_picture_changes():
    """On plain backgrounds, what differs between the drawings of two scenes is at the patches of the moved object."""
    checked = 0
    for start in range(0, 800, 8):
        first, *_, moved = scenes("train", start, 6, "varied")[::5]
        gone = [one for one in first.objects if one not in moved.objects]
        if first.look.blur or first.look.grain or first.look.quality or len(gone) != 1 or len(first.objects) < 2:
            continue
        changed = (draw_pixels(first) - draw_pixels(moved)).abs().sum(0).reshape(8, 8, 8, 8).mean((1, 3))  # (8, 8)
        labels, others = labels_of(first), labels_of(moved)
        shown = (labels["color"] != others["color"]) | (labels["shape"] != others["shape"])
        assert changed[shown].mean() > 8 * changed[~shown].mean()
        checked += 1
    assert checked > 5


def test_the_place_is_the_objects_own():
    for drawn in scenes("train", 0, 40, "varied"):
        labels = labels_of(drawn)
        for one in drawn.objects:
            shown = (labels["color"] == list(COLORS).index(one.color)) & (labels["shape"] == SHAPES.index(one.shape))
            assert (labels["place"][shown] == list(PLACES).index(one.place)).all()


def test_labels_are_indices_of_answers():
    labels = torch.stack([patch_labels(crowd(number, "varied")) for number in range(10)])
    assert labels.shape == (10, len(HEADS), 64)
    assert all(labels[:, i].max() < len(answers) for i, answers in enumerate(HEADS.values()))
    assert (labels >= 0).all()


def label_at(drawn, x, y):
    """The answers at one point of the picture, by the definition."""

    def distance(one):
        (right, down), look = center_of(drawn.look, one), drawn.look
        wide, high = one.radius / look.ratio**0.5 + MARGIN, one.radius * look.ratio**0.5 + MARGIN
        return math.hypot((x - right) / wide, (y - down) / high)

    nearest = min(drawn.objects, key=distance)
    found = nearest if distance(nearest) < 1 else None
    cell = next(place for place, cell in PLACES.items() if cell == (int(3 * x), int(3 * y)))
    words = [getattr(found, name, None) for name in ("color", "shape", "size")]
    words += [found.place if found else cell, drawn.background.kind]
    return [answers.index(word) for answers, word in zip(HEADS.values(), words, strict=True)]


@pytest.mark.parametrize("style", ["classic", "varied", "unseen"])
def test_labels_follow_their_definition(style):
    for drawn in [*scenes("train", 0, 12, style), *(crowd(number, style) for number in range(12))]:
        expected = [label_at(drawn, (column + 0.5) / 8, (row + 0.5) / 8) for row in range(8) for column in range(8)]
        assert patch_labels(drawn).T.tolist() == expected
