"""From features and the captions that each image has to the losses of the global batch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.support.training.steps import LOSSES
from vladva_training.config import LossSection
from vladva_training.losses.contrastive import info_nce
from vladva_training.step.batches import Batch
from vladva_training.step.global_loss import Presence, contrastive_losses, place

B, D, K = 4, 8, 2
FIELDS = ("short", "other_short", "hard_negatives", "pictures", "hashes")
SCALES = torch.tensor([2.0, 0.0], dtype=torch.float64)


def ids(*values):
    return torch.tensor(values)


def batch_of(texts=("one", "two", "three", "four"), **fields):
    """Image 1 has no short caption, image 3 no second one; images 0 and 2 have one and two false captions."""
    whole = {
        "keys": tuple("abcd"),
        "images": torch.zeros(B, 3, 2, 2),
        "short": (ids(1), None, ids(3), ids(4)),
        "other_short": (ids(11), ids(12), ids(13), None),
        "long": (None,) * B,
        "hard_negatives": ((ids(8),), (), (ids(9), ids(9)), ()),
        "short_texts": (texts[0], None, *texts[2:]),
        "pictures": (21, 22, 23, 24),
    }
    return Batch(**{**whole, **fields})


def unit(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, D, generator=generator, dtype=torch.float64), dim=-1)


def test_presence_survives_packing():
    presence = Presence.of(batch_of(), K, near=False)
    assert presence.short.tolist() == [True, False, True, True]
    assert presence.other_short.tolist() == [True, True, True, False]
    assert presence.hard_negatives.tolist() == [[True, False], [False, False], [True, True], [False, False]]
    packed = presence.pack()
    assert packed.dtype == torch.int64 and packed.shape == (B, 7 + 3 * K)
    again = Presence.unpack(packed, K)
    assert again.known is presence.known is None
    for name in FIELDS:
        assert torch.equal(getattr(again, name), getattr(presence, name))


def test_too_many_false_captions_are_an_error():
    with pytest.raises(ValueError, match=r"2 hard negatives, loss.hard_negatives is 1"):
        Presence.of(batch_of(), 1, near=False)


def test_features_stand_beside_their_image_and_gradients_come_back():
    images, texts = unit(B), unit(3 + 3 + 3, seed=1).requires_grad_()
    placed = place(images, texts, Presence.of(batch_of(), K, near=False))
    assert placed.shape == (B, 3 + K, D)
    short, other, hard = texts.split(3)
    nothing = torch.zeros(D, dtype=torch.float64)
    expected = [
        torch.stack([images[0], short[0], other[0], hard[0], nothing]),
        torch.stack([images[1], nothing, other[1], nothing, nothing]),
        torch.stack([images[2], short[1], other[2], hard[1], hard[2]]),
        torch.stack([images[3], short[2], nothing, nothing, nothing]),
    ]
    assert torch.equal(placed, torch.stack(expected))
    placed.sum().backward()
    assert torch.equal(texts.grad, torch.ones_like(texts))


def losses_of(batch, section, texts=None):
    presence = Presence.of(batch, section.hard_negatives, section.false_negatives == "near")
    count = sum(int(mask.sum()) for mask in (presence.short, presence.other_short, presence.hard_negatives))
    return contrastive_losses(place(unit(B), unit(count, seed=1), presence), presence, SCALES, section)


def test_the_plain_loss_is_info_nce_of_the_images_with_a_short_caption():
    section = LossSection(hard_negatives=0)
    batch = batch_of(hard_negatives=((),) * B)
    found = losses_of(batch, section)
    kept = [0, 2, 3]
    expected = info_nce(unit(B)[kept], unit(6, seed=1)[:3], SCALES[0])
    assert set(found) == {"contrastive"}
    torch.testing.assert_close(found["contrastive"], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("masks", "texts", "masked"),
    [
        ("identical", ("one", None, "one", "four"), True),
        ("identical", ("one", None, "One!", "four"), False),
        ("near", ("one", None, "The One!", "four"), True),
        ("none", ("one", None, "one", "four"), False),
    ],
)
def test_which_captions_are_not_negatives_of_each_other(masks, texts, masked):
    section = LossSection(false_negatives=masks)
    batch = batch_of(texts, hard_negatives=((),) * B)
    same = torch.zeros(3, 3, dtype=torch.bool)
    same[0, 1] = same[1, 0] = masked
    expected = info_nce(unit(B)[[0, 2, 3]], unit(6, seed=1)[:3], SCALES[0], same=same)
    torch.testing.assert_close(losses_of(batch, section)["contrastive"], expected, rtol=1e-12, atol=0)


def test_text_to_text_pairs_both_captions_and_masks_crossed_twins():
    """Images 0 and 2 have both; if image 0's second caption equals image 2's short one, no pair is negative."""
    section = LossSection(text_text_weight=1.0)
    batch = batch_of(hard_negatives=((),) * B)
    texts = unit(6, seed=1)
    expected = info_nce(texts[[0, 1]], texts[[3, 5]], SCALES[0])
    torch.testing.assert_close(losses_of(batch, section)["text_text"], expected, rtol=1e-12, atol=0)
    twins = replace(batch, other_short=(ids(3), *batch.other_short[1:]))
    assert losses_of(twins, section)["text_text"] == 0
    assert losses_of(twins, replace(section, false_negatives="none"))["text_text"] > 0


def pairs(mask):
    """The pairs off the diagonal."""
    return {(i, j) for i, j in mask.nonzero().tolist() if i != j}


def one_picture(*rows, **fields):
    """A batch in which these rows have the same picture."""
    return batch_of(pictures=tuple(5 if row in rows else 21 + row for row in range(B)), **fields)


def test_rows_of_one_picture_are_not_negatives():
    presence = Presence.of(one_picture(0, 2), K, near=False)
    for found in (presence.same_picture(), presence.same_short(), presence.same_either()):
        assert pairs(found) == {(0, 2), (2, 0)} and found.diagonal().all()


def test_unknown_pictures_and_absent_captions_equal_nothing():
    bare = batch_of(short=(None,) * B, short_texts=(None,) * B, other_short=(None,) * B, pictures=())
    presence = Presence.of(bare, K, near=False)
    assert not any(map(pairs, (presence.same_picture(), presence.same_short(), presence.same_either())))


def test_a_caption_of_another_row_of_the_picture_is_true_of_the_image():
    """Rows 0 and 2 are one picture, and rows 2 and 3 have the same caption. So text 3 matches image 0, while it is
    unknown whether text 0 matches image 3."""
    batch = one_picture(0, 2, texts=("one", "two", "three", "three"), hard_negatives=((),) * B)
    presence = Presence.of(batch, 0, near=False)
    assert pairs(presence.same_short()) == {(0, 2), (2, 0), (2, 3), (3, 2), (0, 3)}
    assert pairs(presence.same_either()) == {(0, 2), (2, 0), (2, 3), (3, 2), (0, 3), (3, 0)}
    expected = info_nce(
        unit(B)[[0, 2, 3]], unit(6, seed=1)[:3], SCALES[0], same=presence.same_short()[[0, 2, 3]][:, [0, 2, 3]]
    )
    torch.testing.assert_close(losses_of(batch, LossSection())["contrastive"], expected, rtol=1e-12, atol=0)


def test_a_second_caption_is_true_of_its_image():
    presence = Presence.of(batch_of(other_short=(ids(3), None, None, None)), K, near=False)
    assert pairs(presence.same_short()) == {(0, 2)}


@pytest.mark.parametrize(
    ("near", "fields", "true"),
    [
        (
            False,
            {"hard_negatives": ((ids(3),), (), (ids(9), ids(4)), ())},
            {(0, 0)},
        ),  # a caption of row 2, one of row 3
        (False, {"hard_negatives": ((ids(13),), (), (ids(1), ids(11)), ())}, {(0, 0), (2, 0), (2, 1)}),
        (False, {"further_texts": (("x", "Three!"), (), ("y", "one", "z"), ())}, {(2, 0)}),
        (True, {"further_texts": (("x", "Three!"), (), ("a One", "y", "z"), ())}, {(0, 0)}),
        (True, {"further_texts": (("x", "y"), (), ("a One", "the one", "z"), ())}, {(2, 0)}),
    ],
)
def test_hard_negatives_that_are_captions_of_the_picture(near, fields, true):
    """Rows 0 and 2 are one picture, row 3 is another."""
    presence = Presence.of(one_picture(0, 2, **fields), K, near)
    assert set(map(tuple, presence.true_hard_negatives().nonzero().tolist())) == true
    assert presence.counts(slice(2, 4)).tolist() == [2, 1, sum(row >= 2 for row, _ in true)]
    assert presence.counts(slice(0, 4)).tolist() == [2, 0, len(true)]


@pytest.mark.parametrize("name", ["info_nce", "sigmoid", "hardness"])
def test_a_true_hard_negative_counts_as_absent(name):
    section = replace(LOSSES[name], text_text_weight=0.0)
    false, true = (batch_of(hard_negatives=((row,), (), (ids(9), ids(8)), ())) for row in (ids(7), ids(1)))
    texts, images = unit(9, seed=1), unit(B)

    def loss(batch, presence=None):
        presence = presence or Presence.of(batch, K, near=False)
        return contrastive_losses(place(images, texts, presence), presence, SCALES, section)["contrastive"]

    presence = Presence.of(false, K, near=False)
    features = place(images, texts, presence)
    absent = replace(presence, hard_negatives=presence.hard_negatives & torch.tensor([[False], [True], [True], [True]]))
    expected = contrastive_losses(features, absent, SCALES, section)["contrastive"]
    torch.testing.assert_close(loss(true), expected, rtol=1e-12, atol=0)
    section = replace(section, false_negatives="none")
    assert loss(true) == loss(false) > expected


@pytest.mark.parametrize("name", ["info_nce", "sigmoid", "hardness"])
def test_a_batch_of_one_picture_has_no_negatives(name):
    section = replace(LOSSES[name], hard_negatives=0)
    batch = one_picture(*range(B), hard_negatives=((),) * B)
    presence = Presence.of(batch, 0, near=False)
    features = place(unit(B), unit(6, seed=1), presence).requires_grad_()
    losses = contrastive_losses(features, presence, SCALES, section)
    sum(losses.values()).backward()
    assert features.grad.isfinite().all()
    scale = SCALES[0].exp()
    positives = (features[[0, 2, 3], 0] * features[[0, 2, 3], 1]).sum(-1) * scale
    expected = -F.logsigmoid(positives).mean() if name == "sigmoid" else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(losses["contrastive"], expected, rtol=1e-12, atol=0)
    with_negatives = contrastive_losses(features, presence, SCALES, replace(section, false_negatives="none"))
    assert with_negatives["contrastive"] > losses["contrastive"]


@pytest.mark.parametrize("name", LOSSES)
def test_no_short_caption_gives_zero_for_every_loss(name):
    bare = batch_of(short=(None,) * B, short_texts=(None,) * B, other_short=(None,) * B, hard_negatives=((),) * B)
    assert all(value == 0 for value in losses_of(bare, LOSSES[name]).values())
