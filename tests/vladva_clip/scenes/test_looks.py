"""How scenes are drawn: the styles keep apart, and whatever the look, objects keep their color, size and place."""

import colorsys
import random
from collections import Counter

import numpy as np
import pytest

from vladva_clip.scenes import BACKGROUNDS, COLORS, Scene, scenes
from vladva_clip.scenes.looks import (
    CLASSIC,
    EDGES,
    FILLS,
    RATIOS,
    UNSEEN_EDGE,
    UNSEEN_FILL,
    UNSEEN_RATIO,
    UNSEEN_TEXTURE,
    Look,
    sample_look,
)
from vladva_clip.scenes.placing import SHADES, place_object, sample_background

LOOKS = {style: [sample_look(random.Random(seed), style) for seed in range(600)] for style in ("varied", "unseen")}
VARIED = scenes("train", 0, 320, "varied")


def test_training_draws_nothing_of_the_unseen_style():
    for look in LOOKS["varied"]:
        assert look.fill != UNSEEN_FILL and look.edge != UNSEEN_EDGE and abs(look.ratio - UNSEEN_RATIO) > 0.05
    assert not any(one.background.texture for one in VARIED)
    for look in LOOKS["unseen"]:
        assert (look.fill, look.edge, look.ratio) == (UNSEEN_FILL, UNSEEN_EDGE, UNSEEN_RATIO)
    assert {one.background.texture for one in scenes("test", 0, 40, "unseen")} == {UNSEEN_TEXTURE}


def test_training_draws_all_of_the_varied_style():
    counted = {part: Counter(getattr(look, part) for look in LOOKS["varied"]) for part in ("fill", "edge", "ratio")}
    assert set(counted["fill"]) == set(FILLS) and set(counted["edge"]) == set(EDGES)
    assert set(counted["ratio"]) == set(RATIOS) and min(counted["ratio"].values()) > 10
    assert {one.background.kind for one in VARIED} == set(BACKGROUNDS)
    assert 0.1 < np.mean([look.is_classic for look in LOOKS["varied"]]) < 0.2


@pytest.mark.parametrize("style", ["varied", "unseen"])
def test_every_small_object_is_smaller_than_every_large_one(style):
    radii = {"small": [], "large": []}
    for one in scenes("test", 0, 400, style):
        for drawn in one.objects:
            radii[drawn.size].append(drawn.radius)
    assert max(radii["small"]) * 1.15 < min(radii["large"])


def test_a_shade_has_the_hue_of_its_name_and_no_other_does():
    rng = random.Random(0)
    for color in COLORS:
        for _ in range(50):
            rgb = place_object("circle", color, "center", "large", rng, LOOKS["unseen"][0]).rgb
            hue, saturation, _ = colorsys.rgb_to_hsv(*(part / 255 for part in rgb))
            names = {name for name, limits in SHADES.items() if name != "white" and _within(360 * hue, limits[0])}
            assert names == {color} if color != "white" else saturation < 0.06, (color, rgb)


def _within(hue: float, limits: tuple[float, float], slack: float = 1.5) -> bool:
    low, high = limits
    return any(low - slack <= hue + turn <= high + slack for turn in (-360, 0, 360))


@pytest.mark.parametrize("style", ["varied", "unseen"])
def test_an_object_is_drawn_where_it_stands_in_its_color(style):
    """The pixels that change when an object is taken away surround its place; many have about its color."""
    near, right, asked = [], 0, 0
    for one in scenes("test", 0, 320, style):
        if len(one.objects) < 2 or one.look.quality or one.look.grain or one.look.light != (1, 1, 1):
            continue
        whole, without = (np.asarray(Scene(o, *_rest(one)).draw(64), int) for o in (one.objects, one.objects[:-1]))
        changed = np.abs(whole - without).sum(2) > 60
        rows, columns = np.nonzero(changed)
        height, width = changed.shape
        drawn = one.objects[-1]
        near.append(np.hypot(rows.mean() / height - drawn.y, columns.mean() / width - drawn.x))
        distances = np.linalg.norm(whole[changed][:, None] - np.array([drawn.rgb or COLORS[drawn.color]]), axis=2)
        right, asked = right + (np.mean(distances < 130) > 0.25), asked + 1
    assert asked > 50 and max(near) < 0.09 and right / asked > 0.95


def _rest(one: Scene) -> tuple:
    return one.background, one.seed, one.look


@pytest.mark.parametrize("style", ["varied", "unseen"])
def test_the_canvas_has_the_looks_ratio_and_its_shorter_side_the_size(style):
    for one in scenes("test", 0, 200, style):
        width, height = one.draw(64).size
        assert min(width, height) == 64 and abs(width / height - one.look.ratio) < 0.02


def test_a_look_alone_changes_the_picture_and_the_same_look_draws_the_same_bytes():
    first = VARIED[0]
    drawn = {fill: Scene(first.objects, first.background, 0, Look(fill=fill, thickness=0.3)).draw() for fill in FILLS}
    assert len({image.tobytes() for image in drawn.values()}) == len(FILLS)
    assert all(one.draw(64).tobytes() == one.draw(64).tobytes() for one in VARIED[:40])


def test_backgrounds_keep_a_distance_from_the_colors_in_front():
    rng, close = random.Random(1), 0
    for look in (look for look in LOOKS["varied"] if not look.is_classic):
        objects = [place_object("star", color, "left", "small", rng, look) for color in ("white", "blue")]
        background = sample_background(rng, look, objects)
        close += min(np.linalg.norm(np.subtract(a, b.rgb)) for a in background.colors for b in objects) < 60
    assert close < 6


def test_the_texture_of_a_background_can_be_seen():
    drawn = [one.background for one in (*VARIED, *scenes("test", 0, 320, "unseen")) if not one.look.is_classic]
    assert min(np.linalg.norm(np.subtract(*one.colors)) for one in drawn) >= 24
    assert max(part for one in drawn for color in one.colors for part in color) <= 255
    assert min(part for one in drawn for color in one.colors for part in color) >= 0


def test_the_classic_look_is_the_default_and_an_unknown_style_is_refused():
    assert sample_look(random.Random(0), "classic") == CLASSIC == Look()
    with pytest.raises(ValueError, match="found style 'photo'; expected one of classic, varied, unseen"):
        sample_look(random.Random(0), "photo")
