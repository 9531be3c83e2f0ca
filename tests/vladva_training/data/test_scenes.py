import numpy as np
import pytest

from vladva_clip.scenes import family, foils, long_caption, placed_captions, scene, scenes, short_captions
from vladva_training.data.scenes import SceneSource
from vladva_training.data.specs import open_source


def test_a_record_is_its_scene():
    source = open_source("scenes:test:40:400")
    assert len(source) == 40 and source.name == "scenes:test:40:400" and source.group_size == 4
    for index in (39, 0, 7):
        drawn, record = scene("test", 400 + index), source[index]
        assert record.key == f"test/{400 + index}"
        assert record.captions == source.captions(index) == (*short_captions(drawn), long_caption(drawn))
        assert tuple(record.hard_negatives) == tuple(false for _, false in foils(drawn).values())
        assert len(record.hard_negatives) == 7
        assert np.array_equal(np.asarray(record.image), np.asarray(drawn.draw(64)))


def test_groups_are_families():
    source = SceneSource("train", 8, 4, image_size=32)
    for group in range(2):
        members = family("train", 1 + group)
        assert [source.captions(4 * group + m)[5] for m in range(4)] == [long_caption(member) for member in members]
    assert source[0].image.size == (32, 32)
    assert open_source("scenes:train", scene_size=96)[0].image.size == (96, 96)


def test_pairs_are_the_families_of_two_objects_in_their_order():
    source = open_source("scenes:train:12:8:pairs")
    of_two = [number for number in range(100) if len(family("train", number)[0].objects) == 2][2:5]
    members = [member for number in of_two for member in family("train", number)]
    assert [source.captions(index)[5] for index in range(12)] == [long_caption(member) for member in members]
    assert source[5].key == f"train/{4 * of_two[1] + 1}"
    assert source[5].captions[:5] == tuple(short_captions(members[5]))


@pytest.mark.parametrize("split", ["train", "test", "heldout"])
def test_swaps_are_the_two_scenes_of_a_family_that_differ_in_places(split):
    source = open_source(f"scenes:{split}:40:8:swaps")
    assert len(source) == 40 and source.group_size == 2
    for index in range(0, 40, 2):
        first, second = (scene(split, int(source[row].key.split("/")[1])) for row in (index, index + 1))
        assert [source.captions(row)[5] for row in (index, index + 1)] == [long_caption(first), long_caption(second)]
        (a, b, *rest), (c, d, *others) = first.objects, second.objects
        assert (a.pair, b.pair, a.place, b.place) == (c.pair, d.pair, d.place, c.place)
        assert [(o.pair, o.place) for o in rest] == [(o.pair, o.place) for o in others]
    assert source[0].key == f"{split}/16"
    both = open_source(f"scenes:{split}:8:0:pairs:swaps")
    assert all(len(scene(split, int(both[row].key.split("/")[1])).objects) == 2 for row in range(8))


def test_places_name_the_place_of_every_object():
    source = open_source("scenes:test:40:places")
    for index in range(40):
        drawn, record = scene("test", index), source[index]
        assert record.captions == source.captions(index) == (*placed_captions(drawn), long_caption(drawn))
        assert all(f"{o.color} {o.shape} " in text for text in record.captions[:5] for o in drawn.objects)
        assert all(o.place in text for text in record.captions[:5] for o in drawn.objects)
    of_two = [one for one in scenes("test", 0, 400) if len(one.objects) == 2]
    both = open_source("scenes:test:40:0:pairs:places")
    assert [both.captions(index)[:5] for index in range(40)] == [tuple(placed_captions(one)) for one in of_two[:40]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("scenes:train:8:places:pairs", r"expected scenes:SPLIT\[:COUNT"),
        ("scenes:val", "the split of the scenes is 'val', expected one of train, validation, test, heldout"),
        ("scenes:train:10", "multiples of 4"),
        ("scenes:train:8:2", "multiples of 4"),
        ("scenes:train:3:swaps", "multiples of 2"),
        ("scenes:train:0", "at least 4"),
        ("scenes:train:12:varied", "multiples of 8"),
        ("scenes:train:16:4:unseen", "multiples of 8"),
        ("scenes:train:3:varied:axis", "multiples of 2"),
        ("scenes:train:8:axis", "found axis of classic scenes of 'train'.*expected swaps or colors"),
        ("scenes:heldout:8:varied:colors", "found colors of varied scenes of 'heldout'.*expected swaps or axis"),
        ("scenes:heldout:8:colors", "found colors of classic scenes of 'heldout'.*expected swaps"),
        ("scenes:train:8:pairs:varied", r"expected scenes:SPLIT\[:COUNT"),
        ("scenes:train:8:classic", r"expected scenes:SPLIT\[:COUNT"),
        ("scenes:varied", "the split of the scenes is 'varied', expected one of train, validation, test, heldout"),
        ("scenes:train:many", r"expected scenes:SPLIT\[:COUNT"),
        ("scene:train", r"Did you mean scenes:SPLIT"),
        ("/data/cc3m", "expected one of scenes:SPLIT.*; wds:PATH.tar.*; hf:DIRECTORY"),
        ("jsonl:", "expected one of"),
    ],
)
def test_invalid_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        open_source(spec)


def test_an_unknown_style():
    with pytest.raises(ValueError, match="the style of the scenes is 'new', expected one of classic, varied, unseen"):
        SceneSource("train", 8, style="new")


def test_an_index_beyond_the_source():
    with pytest.raises(IndexError):
        SceneSource("train", 8)[8]
