"""The drawn world keeps its promises: determinism, true captions, false foils, families, held-out pairs."""

import hashlib
import itertools
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from vladva_clip.scenes import (
    BACKGROUNDS,
    COLORS,
    FAMILY_SIZE,
    FOIL_KINDS,
    HELD_OUT_PAIRS,
    PLACE_PHRASES,
    PLACES,
    SHAPES,
    SIZES,
    SPLITS,
    TRIPLE_KINDS,
    Scene,
    crowd,
    family,
    foils,
    holds,
    long_caption,
    main_relation,
    one_word_answers,
    scene,
    scenes,
    short_captions,
    triples,
    winoground,
)

MENTION = re.compile(rf"(?:(small|large) )?({'|'.join(COLORS)}) ({'|'.join(SHAPES)})")
RELATION = re.compile(r"(left of|right of|above|over|below|under)")
AXES = {
    "left of": ("x", -1),
    "right of": ("x", 1),
    "above": ("y", -1),
    "over": ("y", -1),
    "below": ("y", 1),
    "under": ("y", 1),
}

SAMPLE = [drawn for split in SPLITS for drawn in scenes(split, 0, 60)]


def is_true(caption: str, drawn: Scene) -> bool:
    """An independent reading of a caption: regular expressions and coordinates, none of the library's own logic."""
    sentences = re.split(r"\. ", caption)
    return all(_sentence_is_true(sentence, drawn) for sentence in sentences)


def _sentence_is_true(sentence: str, drawn: Scene) -> bool:
    found = {match.start(): _find(match.groups(), drawn) for match in MENTION.finditer(sentence)}
    if None in found.values():
        return False
    relation = RELATION.search(sentence)
    if relation:
        before = [found[start] for start in found if start < relation.start()]
        after = [found[start] for start in found if start > relation.start()]
        return _relation_is_true(relation.group(), before[-1], after[0])
    return all(_place_is_true(o, drawn) for o in _placed(sentence, drawn))


def _find(words, drawn):
    size, color, shape = words
    fitting = [o for o in drawn.objects if (o.color, o.shape) == (color, shape) and size in (None, o.size)]
    return fitting[0] if fitting else None


def _relation_is_true(relation, first, second):
    axis, sign = AXES[relation]
    return sign * (getattr(first, axis) - getattr(second, axis)) > 0.2


def _placed(sentence, drawn):
    """(object, column word, row word) of every mention that a place follows."""
    parts = re.split(r", | and ", sentence)
    for part in parts:
        mention = MENTION.search(part)
        if mention:
            yield _find(mention.groups(), drawn), part[mention.end() :]


def _place_is_true(placed, drawn):
    scene_object, words = placed
    column = "left" if scene_object.x < 1 / 3 else "right" if scene_object.x > 2 / 3 else ""
    row = "top" if scene_object.y < 1 / 3 else "bottom" if scene_object.y > 2 / 3 else ""
    expected = {column, row} - {""} or {"center"}
    return set(re.findall(r"top|bottom|left|right|center", words)) == expected


def fingerprint() -> str:
    """A digest of drawings and texts of a few scenes of each split."""
    digest = hashlib.sha256()
    for split, index in itertools.product(SPLITS, (0, 5, 1001)):
        drawn = scene(split, index)
        digest.update(drawn.draw(96).tobytes())
        digest.update(repr((short_captions(drawn), long_caption(drawn), foils(drawn), triples(drawn))).encode())
    return digest.hexdigest()


def test_scenes_are_the_same_in_another_process():
    program = "from tests.vladva_clip.test_scenes import fingerprint; print(fingerprint())"
    command = [sys.executable, "-c", program]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert other.stdout.strip() == fingerprint()


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
    assert {drawn.background.kind for drawn in SAMPLE} == set(BACKGROUNDS)


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


def test_short_captions_vary_in_wording():
    starts = Counter(caption.split()[0] for drawn in SAMPLE for caption in short_captions(drawn))
    assert {"a", "an", "there", "with"} <= set(starts)


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


def test_captions_use_an_before_orange_only():
    for drawn in SAMPLE:
        for caption in (*short_captions(drawn), long_caption(drawn)):
            assert not re.search(r"\ba orange|\ban (?!orange)", caption)


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


def test_foils_of_training_scenes_name_no_held_out_pair():
    for drawn in SAMPLE[:120]:
        for caption in itertools.chain(*foils(drawn).values(), *triples(drawn).values()):
            assert not {match.groups()[1:] for match in MENTION.finditer(caption)} & HELD_OUT_PAIRS


def test_crowds_fill_most_places_without_held_out_pairs():
    crowds = [crowd(number) for number in range(60)]
    assert all(len({o.place for o in drawn.objects}) == len(drawn.objects) for drawn in crowds)
    assert sum(len(drawn.objects) for drawn in crowds) / len(crowds) > 6.5
    assert not any(drawn.pairs & HELD_OUT_PAIRS for drawn in crowds)
    assert crowd(3) == crowds[3] and len(set(crowds)) == len(crowds)


def test_every_trained_color_and_shape_is_also_seen_apart_from_the_held_out_pairs():
    seen = Counter(word for drawn in scenes("train", 0, 400) for pair in drawn.pairs for word in pair)
    assert min(seen[word] for word in (*COLORS, *SHAPES)) > 30


def test_relations_hold_one_way_only():
    for drawn in SAMPLE[:100]:
        for a, b in itertools.permutations(drawn.objects, 2):
            relation = main_relation(a, b)
            assert holds(relation, a, b) and not holds(relation, b, a)
            assert _relation_is_true(relation, a, b)


def test_one_word_answers_are_the_scenes_colors_and_shapes():
    drawn = Scene.of([("square", "blue", "right"), ("circle", "red", "left")])
    assert one_word_answers(drawn) == ["red", "circle", "blue", "square"]


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


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([("circle", "red", "left"), ("square", "pink", "right")], "found 'pink'.*expected one of red"),
        ([("circle", "red", "left"), ("square", "blue", "west")], "found 'west'.*expected one of top left"),
        ([("circle", "red", "left"), ("square", "blue", "left")], "two objects of one place"),
        ([("circle", "red", "left"), ("circle", "red", "right")], "two objects of one color and shape"),
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
