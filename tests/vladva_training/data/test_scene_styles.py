"""Scenes of the varied and the unseen style as records, and which of their captions are negatives of each other."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vladva_clip
from tests.support.training.loaders import open_loader
from tests.support.training.pairs import to_pixels
from vladva_clip.scenes import facts, hard_negatives, long_caption, num_objects, scene, short_sayings
from vladva_training.config import LossSection
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.specs import open_source
from vladva_training.step.global_loss import Presence, contrastive_losses

SCALES = torch.tensor([4.605, 0.0])


@pytest.fixture(scope="module")
def splitter():
    return CaptionSplitter(vladva_clip.get_tokenizer("vladva-tiny"))


@pytest.mark.parametrize("style", ["varied", "unseen"])
@pytest.mark.parametrize("split", ["validation", "heldout"])
def test_a_record_is_its_scene(split, style):
    source = open_source(f"scenes:{split}:80:400:{style}")
    assert len(source) == 80 and source.group_size == 8
    for index in (0, 7, 41, 79):
        drawn, record = scene(split, 400 + index, style), source[index]
        assert record.key == f"{style}/{split}/{400 + index}"
        assert record.captions[:-1] == tuple(saying.text for saying in short_sayings(drawn))
        assert record.captions == source.captions(index) and record.captions[-1] == long_caption(drawn)
        assert tuple(record.hard_negatives) == tuple(hard_negatives(drawn)) and len(record.hard_negatives) >= 3
        assert record.facts == facts(drawn) and record.claims == dict(short_sayings(drawn))
        assert np.array_equal(np.asarray(record.image), np.asarray(drawn.draw(64)))
        assert min(record.image.size) == 64


def test_classic_records_know_their_facts_too():
    record, drawn = open_source("scenes:test:8")[3], scene("test", 3)
    assert record.facts == facts(drawn) and record.claims == dict(short_sayings(drawn))
    assert all(claims <= record.facts for claims in record.claims.values())
    placed = open_source("scenes:test:8:places")[3]
    assert set(placed.claims) == set(placed.captions[:5]) and all(
        claims <= facts(drawn) for claims in placed.claims.values()
    )


def members_of(source, split, style="varied"):
    """The pairs of neighboring records as pairs of scenes, with their places in their families."""
    numbers = [int(source[index].key.split("/")[-1]) for index in range(len(source))]
    for one, other in zip(numbers[::2], numbers[1::2], strict=True):
        assert one // 8 == other // 8
        yield (one % 8, other % 8), scene(split, one, style), scene(split, other, style)


@pytest.mark.parametrize(
    ("what", "split", "expected"),
    [
        ("swaps", "train", (0, 2)),
        ("swaps", "heldout", (0, 2)),
        ("colors", "test", (0, 1)),
        ("axis", "train", (0, 3)),
        ("axis", "heldout", (0, 3)),
    ],
)
def test_members_differ_in_one_thing(what, split, expected):
    source = open_source(f"scenes:{split}:24:8:varied:{what}")
    assert source.group_size == 2
    for places, first, second in members_of(source, split):
        assert places == expected and len(first.objects) == len(second.objects) >= 2
        (a, b, *rest), (c, d, *others) = first.objects, second.objects
        assert rest == others and first.background == second.background and (a.size, b.size) == (c.size, d.size)
        if what == "colors":
            assert (a.color, b.color, a.place, b.place) == (d.color, c.color, c.place, d.place)
        else:
            assert (a.pair, b.pair) == (c.pair, d.pair)
            assert (what == "swaps") == ((a.place, b.place) == (d.place, c.place))
            assert (what == "axis") == (a.place == c.place and b.place != d.place)


def test_an_arrangement_has_one_bag_of_words():
    source = open_source("scenes:train:48:8:varied:arrangement")
    assert source.group_size == 4
    numbers = [int(source[index].key.split("/")[-1]) for index in range(48)]
    for first in range(0, 48, 4):
        assert [number % 8 for number in numbers[first : first + 4]] == [0, 1, 2, 3]
        scenes = [scene("train", number, "varied") for number in numbers[first : first + 4]]
        words = {tuple(sorted(word for one in drawn.objects for word in one.pair)) for drawn in scenes}
        assert len(words) == 1 and len(scenes[0].objects) > 1


@pytest.mark.parametrize("which", ["pairs:swaps", "arrangement", ""])
def test_told_captions_are_false_of_the_first_scene(which):
    spec = f"scenes:train:160:varied{which and ':'}{which}"
    source, everything = open_source(f"{spec}:told"), open_source(spec)
    size, fewer = source.group_size, 0
    for index in range(160):
        record, whole = source[index], everything[index]
        first = index - index % size
        rivals = [first] if index % size else list(range(first + 1, first + size))
        told = [
            {text for text in whole.captions[:-1] if not whole.claims[text] <= everything[rival].facts}
            for rival in rivals
        ]
        told = [texts or set(whole.captions[:-1]) for texts in told]
        assert set(record.captions[:-1]) in told and set(record.claims) == set(record.captions[:-1])
        assert record.captions == source.captions(index) and record.captions[-1] == whole.captions[-1]
        fewer += len(record.captions) < len(whole.captions)
    assert fewer > 100


def test_pairs_and_members_count_the_families_that_are_left():
    source = open_source("scenes:train:16:8:varied:pairs")
    of_two = [number for number in range(100) if num_objects("train", number, "varied") == 2][1:3]
    keys = [f"varied/train/{8 * number + member}" for number in of_two for member in range(8)]
    assert [source[index].key for index in range(16)] == keys
    several = [number for number in range(100) if num_objects("train", number, "varied") > 1][2:6]
    source = open_source("scenes:train:8:4:varied:axis")
    assert [source[index].key for index in range(0, 8, 2)] == [f"varied/train/{8 * number}" for number in several]
    both = open_source("scenes:train:4:2:unseen:pairs:swaps")
    assert [both[index].key for index in range(0, 4, 2)] == [f"unseen/train/{8 * number}" for number in of_two]


def test_places_of_one_object():
    for index in range(40, 48):  # the sixth family
        record = open_source("scenes:train:48:varied:places")[index]
        assert all(claims <= record.facts for claims in record.claims.values())
    assert num_objects("train", 5, "varied") == 1


def brute_force(scenes_, claims):
    """`[i][j]`: whether what caption j claims is all true of scene i."""
    return [[bool(claim) and claim <= facts(one) for claim in claims] for one in scenes_]


def batch_of(splitter, spec, size, **options):
    """A batch of whole families with their scenes, and what its captions claim."""
    source = open_source(spec)
    loader = open_loader([source], splitter, to_pixels, batch_size=size, with_facts=True, **options)
    batch = next(iter(loader))
    found = []
    for key in batch.keys:
        style, split, number = key.split("/")
        found.append(scene(split, int(number), style))
    said = [dict(short_sayings(one)) for one in found]
    claims = [mine[text] for mine, text in zip(said, batch.short_texts, strict=True)]
    return batch, found, claims


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("style", ["varied", "unseen"])
def test_what_is_undecided_is_masked_and_what_is_decided_is_not(splitter, style, num_workers):
    batch, found, claims = batch_of(splitter, f"scenes:train:96:{style}", 96, num_workers=num_workers)
    true = torch.tensor(brute_force(found, claims))
    identical = Presence.of(batch, 0, near=False).same_short()
    same = Presence.of(batch, 0, near=False, known=True).same_short()
    assert torch.equal(same, identical | true) and true.diagonal().all()
    families = torch.tensor([int(key.split("/")[-1]) // 8 for key in batch.keys])
    own_family = (families[:, None] == families) & ~torch.eye(96, dtype=torch.bool)
    assert own_family.sum() == 96 * 7
    decided, undecided = own_family & ~true, own_family & true
    assert not same[decided].any() and decided.sum() > 100 and same[undecided].all() and undecided.sum() > 100
    assert identical[undecided].float().mean() < 0.5  # equal texts alone would not do


def test_second_captions_and_hard_negatives_follow_the_facts_too(splitter):
    batch, found, _ = batch_of(splitter, "scenes:train:48:varied", 48, with_other_short=True, num_hard_negatives=4)
    said = [dict(short_sayings(one)) for one in found]
    short, other = (
        [mine.get(text) for mine, text in zip(said, texts, strict=True)]
        for texts in (batch.short_texts, [texts[0] for texts in batch.further_texts])
    )
    expected = torch.tensor(brute_force(found, short)).T | torch.tensor(brute_force(found, other))
    plain, known = (Presence.of(batch, 4, near=False, known=known) for known in (False, True))
    assert torch.equal(known.same_either(), plain.same_either() | expected)
    assert not known.true_hard_negatives().any() and batch.hard_negatives[0]


def test_a_perfect_encoder_has_no_loss_with_the_mask_and_much_without_it(splitter):
    """A text's feature matches every picture that it is true of: that is a mistake only where the mask is missing."""
    batch, found, claims = batch_of(splitter, "scenes:train:32:varied", 32)
    true = torch.tensor(brute_force(found, claims), dtype=torch.float32)
    images = F.normalize(torch.cat([true, torch.full((32, 1), 1e-3)], dim=1), dim=-1)
    texts = torch.eye(32, 33)
    features = torch.stack([images, texts, torch.zeros_like(texts)], dim=1)
    logit = (images * texts).sum(-1)  # of an image and its own caption, as large as of any other true one
    assert torch.allclose((images @ texts.T)[true.bool()], logit[:, None].expand(32, 32)[true.bool()])

    def loss(masks):
        presence = Presence.of(batch, 0, near=False, known=masks == "known")
        return contrastive_losses(features, presence, SCALES, LossSection(false_negatives=masks))["contrastive"].item()

    assert loss("known") < 0.01 < math.log(2) < loss("identical")
