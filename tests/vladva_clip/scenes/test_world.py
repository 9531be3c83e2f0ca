"""The drawn world keeps its promises: determinism, true captions, false foils, families, held-out pairs."""

import hashlib
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vladva_clip.scenes import (
    CLASSIC_BACKGROUNDS,
    COLORS,
    FAMILY_SIZE,
    HELD_OUT_PAIRS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    crowd,
    family,
    foils,
    long_caption,
    scene,
    scenes,
    short_captions,
    triples,
)

SPLITS = ("train", "test", "heldout")  # what the first release drew; the newer "validation" is like "test"
SAMPLE = [drawn for split in SPLITS for drawn in scenes(split, 0, 60)]


def fingerprint() -> str:
    """A digest of drawings and texts of a few scenes of each split."""
    digest = hashlib.sha256()
    for split, index in itertools.product(SPLITS, (0, 5, 1001)):
        drawn = scene(split, index)
        digest.update(drawn.draw(96).tobytes())
        digest.update(repr((short_captions(drawn), long_caption(drawn), foils(drawn), triples(drawn))).encode())
    return digest.hexdigest()


def test_scenes_are_the_same_in_another_process():
    program = "from tests.vladva_clip.scenes.test_world import fingerprint; print(fingerprint())"
    root = Path(__file__).parents[3]
    command, environment = [sys.executable, "-c", program], {"PYTHONHASHSEED": "7"}
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=root)
    assert other.stdout.strip() == fingerprint()


def test_what_training_draws_stays_as_it_is():
    """The digest is that of the first release: the shipped adapter was trained on these words and pixels."""
    assert fingerprint() == "0ba8ffeaf1431b441634ae16d5388f9a2ac2432ec1ea3c1e001709d301e7e689"


def test_a_scene_does_not_depend_on_how_it_is_reached():
    assert scenes("test", 3, 7) == [scene("test", index) for index in range(3, 10)]
    assert family("test", 2) == scenes("test", 2 * FAMILY_SIZE, FAMILY_SIZE)


def test_scenes_of_different_indices_and_splits_differ():
    assert len(set(SAMPLE)) == len(SAMPLE)
    assert len({drawn.draw(32).tobytes() for drawn in SAMPLE}) == len(SAMPLE)


def test_the_world_has_all_it_promises():
    objects = [o for drawn in SAMPLE for o in drawn.objects]
    assert {o.color for o in objects} == set(COLORS) and len(COLORS) >= 8
    assert {o.shape for o in objects} == set(SHAPES) and len(SHAPES) >= 6
    assert {o.size for o in objects} == set(SIZES) == {"small", "large"}
    assert {o.place for o in objects} == set(PLACES) and len(PLACES) == 9
    assert {len(drawn.objects) for drawn in SAMPLE} == {2, 3, 4}
    assert {drawn.background.kind for drawn in SAMPLE} == set(CLASSIC_BACKGROUNDS)


@pytest.mark.parametrize("attribute", ["x", "y", "radius", "rotation", "shade"])
def test_every_object_is_jittered(attribute):
    values = [getattr(o, attribute) for drawn in SAMPLE for o in drawn.objects]
    assert len(set(values)) == len(values)


def test_objects_stay_inside_the_image_and_apart():
    for drawn in SAMPLE:
        assert all(min(o.x, o.y, 1 - o.x, 1 - o.y) > o.radius for o in drawn.objects)
        for a, b in itertools.combinations(drawn.objects, 2):
            assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius


def test_sizes_have_a_clear_margin():
    assert SIZES["large"][0] > 1.3 * SIZES["small"][1]


@pytest.mark.parametrize("image_size", [16, 96, 336])
def test_draw_gives_a_square_rgb_image(image_size):
    image = SAMPLE[0].draw(image_size)
    assert image.mode == "RGB" and image.size == (image_size, image_size)


def test_draw_refuses_an_image_too_small():
    with pytest.raises(ValueError, match="image_size is 8.*at least 16"):
        SAMPLE[0].draw(8)


def test_an_object_is_drawn_at_its_place_in_its_color():
    for drawn in SAMPLE[:60]:
        pixels = np.asarray(drawn.draw(96)).astype(int)
        for o in drawn.objects:
            expected = np.minimum(255, np.array(COLORS[o.color]) * o.shade)
            assert np.abs(pixels[round(o.y * 96), round(o.x * 96)] - expected).max() <= 2


def test_colors_stay_apart_under_every_shade_and_background():
    shades = {name: [np.array(rgb) * s for s in (0.84, 0.94, 1.0)] for name, rgb in COLORS.items()}
    shades["white"] = shades["white"][1:]
    for first, second in itertools.combinations(COLORS, 2):
        assert min(np.abs(a - b).max() for a in shades[first] for b in shades[second]) > 45


def test_edges_are_anti_aliased():
    pixels = np.asarray(Scene.of([("circle", "red", "left"), ("square", "white", "right")]).draw(96))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 40


def test_square_and_diamond_look_different_in_any_rotation():
    squares = [Scene.of([("square", "red", "left"), ("circle", "blue", "right")], seed=seed) for seed in range(20)]
    diamonds = [Scene.of([("diamond", "red", "left"), ("circle", "blue", "right")], seed=seed) for seed in range(20)]
    assert max(_height_to_width(drawn) for drawn in squares) < 1.05
    assert min(_height_to_width(drawn) for drawn in diamonds) > 1.3


def _height_to_width(drawn):
    pixels = np.asarray(drawn.draw(384)).astype(int)
    rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 1:].max(axis=2) > 90)
    return np.ptp(rows) / np.ptp(columns)


def test_short_captions_vary_in_wording():
    starts = Counter(caption.split()[0] for drawn in SAMPLE for caption in short_captions(drawn))
    assert {"a", "an", "there", "with"} <= set(starts)


def test_families_share_their_objects():
    for split, number in itertools.product(SPLITS, range(30)):
        members = family(split, number)
        assert len(members) == FAMILY_SIZE
        words = [Counter(word for o in m.objects for word in (o.color, o.shape)) for m in members]
        assert all(word == words[0] for word in words)
        assert len({frozenset((o.pair, o.place) for o in m.objects) for m in members}) == FAMILY_SIZE


def test_held_out_pairs_are_in_every_heldout_scene_and_nowhere_else():
    assert len(HELD_OUT_PAIRS) >= 5
    for drawn in SAMPLE[120:]:
        assert drawn.pairs & HELD_OUT_PAIRS
    for drawn in (*scenes("train", 0, 2000), *scenes("test", 0, 400)):
        assert not drawn.pairs & HELD_OUT_PAIRS


def test_crowds_fill_most_places_without_held_out_pairs():
    crowds = [crowd(number) for number in range(60)]
    assert all(len({o.place for o in drawn.objects}) == len(drawn.objects) for drawn in crowds)
    assert sum(len(drawn.objects) for drawn in crowds) / len(crowds) > 6.5
    assert not any(drawn.pairs & HELD_OUT_PAIRS for drawn in crowds)
    assert crowd(3) == crowds[3] and len(set(crowds)) == len(crowds)


def test_every_trained_color_and_shape_is_also_seen_apart_from_the_held_out_pairs():
    seen = Counter(word for drawn in scenes("train", 0, 400) for pair in drawn.pairs for word in pair)
    assert min(seen[word] for word in (*COLORS, *SHAPES)) > 30


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([("circle", "red", "left"), ("square", "pink", "right")], "found 'pink'.*expected one of red"),
        ([("circle", "red", "left"), ("square", "blue", "west")], "found 'west'.*expected one of top left"),
        ([("circle", "red", "left"), ("square", "blue", "left")], "two objects with the same place"),
        ([("circle", "red", "left"), ("circle", "red", "right")], "two objects with the same color and shape"),
        ([("circle", "red", "left")], "found 1 objects; expected 2 to 4"),
        ([("circle", "red"), ("square", "blue", "left")], r"expected \(shape, color, place\)"),
    ],
)
def test_a_wrong_scene_by_hand_is_refused(objects, message):
    with pytest.raises(ValueError, match=message):
        Scene.of(objects)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="found split 'val'.*expected one of"):
        scene("val", 0)
