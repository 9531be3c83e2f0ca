"""Batches: collation, cuts, order and the hashes of captions."""

from dataclasses import dataclass

import pytest
import torch

from vladva_training.step.batches import Batch

ROWS = 5


@dataclass(frozen=True)
class Row:
    """What `Example` has."""

    key: str
    pixels: torch.Tensor
    short: torch.Tensor | None
    other_short: torch.Tensor | None
    long: torch.Tensor | None
    hard_negatives: tuple[torch.Tensor, ...]
    short_text: str | None
    further_texts: tuple[str | None, ...]
    picture: int
    facts: torch.Tensor
    claims: tuple[tuple[int, ...], ...]


def ids(*values):
    return torch.tensor(values)


def example(row):
    long = None if row == 2 else torch.arange(3 + row)
    captions = (ids(row), ids(row, 1), long, (ids(row, 7),) * row)
    texts = f"text {row}", (f"other {row}", *[f"false {row}"] * row)
    return Row(
        f"k{row}", torch.full((3, 2, 2), float(row)), *captions, *texts, 100 + row, ids(row, row + 1), ((row,), ())
    )


@pytest.fixture
def batch():
    return Batch.collate([example(row) for row in range(ROWS)], eos_id=99)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_long_captions_are_ended_and_absent_ones_stay_absent(batch):
    assert len(batch) == ROWS
    assert batch.keys == ("k0", "k1", "k2", "k3", "k4")
    assert batch.images.shape == (ROWS, 3, 2, 2)
    assert batch.long[0].tolist() == [0, 1, 2, 99]
    assert batch.long[2] is None
    assert batch.short[3].tolist() == [3]  # without an end
    assert batch.labeled_tokens == sum(4 + row for row in (0, 1, 3, 4))


@pytest.mark.parametrize("size", [1, 2, 3, ROWS, 9, None])
def test_micro_batches_hold_everything_in_order(batch, size):
    parts = batch.micro_batches(size)
    assert all(len(part) == min(size or ROWS, ROWS) for part in parts[:-1])
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    for name in Batch.__dataclass_fields__:
        if name != "images":
            assert same(sum((getattr(part, name) for part in parts), ()), getattr(batch, name))


def test_by_length_puts_the_longest_captions_first_and_keeps_rows_together(batch):
    ordered = batch.by_length()
    assert ordered.keys == ("k4", "k3", "k1", "k0", "k2")
    for row, key in enumerate(ordered.keys):
        own = int(key[1])
        for name in Batch.__dataclass_fields__:
            assert same(getattr(ordered, name)[row], getattr(batch, name)[own])


def hashes(*texts, near=False):
    nothing = (None,) * len(texts)
    images = torch.zeros(len(texts), 3, 2, 2)
    batch = Batch(nothing, images, nothing, nothing, nothing, ((),) * len(texts), texts)
    return batch.caption_hashes(0, near)[:, 0, 0].tolist()


def test_identical_captions_have_equal_hashes():
    one, again, spaced, other, absent = hashes("a dog", "a dog", " a dog\n", "A dog", None)
    assert one == again == spaced != other
    assert absent == 0


def test_near_identical_captions_differ_in_case_punctuation_and_articles():
    first, *rest = hashes("A dog, on the grass.", "a dog on grass", "Dog on an grass!", near=True)
    assert set(rest) == {first}
    assert len(set(hashes("the dog’s bone…", "A dog's bone", "«dog's bone»", near=True))) == 1
    assert len(set(hashes("कुत्ता", "कत्ता", "café", "cafe", near=True))) == 4  # signs of a letter are no punctuation
    assert hashes("dog on grass", "grass on dog", near=True)[0] != hashes("grass on dog", near=True)[0]


def test_all_kinds_of_captions_are_hashed_alike_by_ids_and_by_text():
    nothing = (None,) * 3
    batch = Batch(
        keys=nothing,
        images=torch.zeros(3, 3, 2, 2),
        short=(ids(5, 6), ids(7), None),
        other_short=(ids(7), None, ids(5, 6)),
        long=nothing,
        hard_negatives=((ids(8), ids(7)), (), (ids(5, 6),)),
        short_texts=("five six", "seven", None),
        further_texts=(("seven", "eight", "seven"), (), ("five six", "five six")),
    )
    found = batch.caption_hashes(2, near=False)  # image, caption (short, second, two false ones), text or ids
    assert found.shape == (3, 4, 2)
    assert found[0, 0].tolist() == found[2, 1].tolist() == found[2, 2].tolist()
    assert found[1, 0].tolist() == found[0, 1].tolist() == found[0, 3].tolist()
    assert len({*found[0, 0].tolist(), *found[1, 0].tolist(), *found[0, 2].tolist()}) == 6
    assert (found[2, 0] == 0).all() and (found[1, 1:] == 0).all() and (found[2, 3] == 0).all()


def test_pictures_and_facts_are_unknown_unless_stated():
    nothing = (None,) * 2
    batch = Batch(nothing, torch.zeros(2, 3, 2, 2), nothing, nothing, nothing, ((),) * 2, nothing)
    assert batch.pictures == (0, 0) and batch.further_texts == batch.claims == ((), ())
    assert [len(facts) for facts in batch.facts] == [0, 0]
