"""What the facts say about a batch's captions, against sets, and what it costs."""

import random
import time

import pytest
import torch

from tests.support.memory import LiveBytes
from vladva_training.config import LossSection
from vladva_training.step.batches import Batch
from vladva_training.step.global_loss import Presence, contrastive_losses
from vladva_training.step.known import MAX_CLAIMS, MAX_FACTS, Known

SCALES = torch.tensor([2.0, 0.0])


def batch_of(facts, claims, pictures=()):
    """Images with these facts and these claims of their short, second and false captions; all captions differ."""
    size, num_hard = len(facts), max(len(rows) for rows in claims) - 2
    ids = [[torch.tensor([row, number]) for number in range(2 + num_hard)] for row in range(size)]
    texts = [tuple(f"{row} {number}" for number in range(2 + num_hard)) for row in range(size)]
    return Batch(
        keys=tuple(map(str, range(size))),
        images=torch.zeros(size, 3, 2, 2),
        short=tuple(row[0] for row in ids),
        other_short=tuple(row[1] for row in ids),
        long=(None,) * size,
        hard_negatives=tuple(tuple(row[2:]) for row in ids),
        short_texts=tuple(row[0] for row in texts),
        further_texts=tuple(row[1:] for row in texts),
        pictures=pictures,
        facts=tuple(torch.tensor(sorted(row), dtype=torch.int64) for row in facts),
        claims=tuple(tuple(tuple(claim) for claim in rows) for rows in claims),
    )


def random_batch(size, num_hard, seed=0):
    """Few facts and claims, so that captions are often true elsewhere; some know nothing, some share a picture."""
    draw = random.Random(seed)
    known = [draw.getrandbits(64) - 2**63 for _ in range(12)]
    facts = [set(draw.sample(known, draw.choice((0, 5, 9)))) for _ in range(size)]
    claims = [[draw.sample(known, draw.choice((0, 1, 2, 3))) for _ in range(2 + num_hard)] for _ in range(size)]
    return batch_of(facts, claims, tuple(draw.choice((0, 7, 8, 100 + row)) for row in range(size)))


def facts_of(batch, row):
    """The facts that all rows of an image's picture know; picture 0 is unknown and has this row only."""
    rows = [other for other in range(len(batch)) if other == row or batch.pictures[row] == batch.pictures[other] != 0]
    return set().union(*(batch.facts[one].tolist() for one in rows))


def by_sets(batch, number):
    """`[i][j]`: whether caption `number` of image j is true of picture i."""
    rows = range(len(batch))
    claims = [set(batch.claims[row][number]) for row in rows]
    return [[bool(claims[j]) and claims[j] <= facts_of(batch, i) for j in rows] for i in rows]


@pytest.mark.parametrize(("size", "num_hard", "seed"), [(1, 0, 0), (9, 2, 1), (40, 3, 2)])
def test_truth_is_that_of_sets(size, num_hard, seed):
    batch = random_batch(size, num_hard, seed)
    presence = Presence.of(batch, num_hard, near=False, known=True)
    truth = presence.known.truth(presence.same_picture().int().argmax(dim=1))
    assert truth.short.tolist() == by_sets(batch, 0) and truth.other_short.tolist() == by_sets(batch, 1)
    hard = [by_sets(batch, 2 + number) for number in range(num_hard)]
    assert truth.hard_negatives.tolist() == [[table[row][row] for table in hard] for row in range(size)]


def test_masks_gain_exactly_what_is_true_and_survive_packing():
    """In this batch no two captions are equal, so "identical" masks nothing but rows of the same picture."""
    batch = random_batch(40, 2)
    plain = Presence.of(batch, 2, near=False)
    packed = Presence.of(batch, 2, near=False, known=True).pack()
    assert packed.dtype == torch.int64 and packed.shape[1] == plain.pack().shape[1] + MAX_FACTS + 4 * MAX_CLAIMS
    known = Presence.unpack(packed, 2)
    short, other = torch.tensor(by_sets(batch, 0)), torch.tensor(by_sets(batch, 1))
    assert torch.equal(known.same_short(), plain.same_short() | short)
    assert torch.equal(known.same_either(), plain.same_either() | short.T | other)
    assert (known.same_short() & ~plain.same_short()).sum() > 40
    own = torch.tensor([[by_sets(batch, 2 + k)[row][row] for k in range(2)] for row in range(40)])
    assert torch.equal(known.true_hard_negatives(), plain.true_hard_negatives() | own) and own.any()


def test_without_facts_nothing_is_known():
    batch = batch_of([()] * 5, [[(), ()]] * 5)
    plain, known = (Presence.of(batch, 0, near=False, known=known) for known in (False, True))
    assert torch.equal(plain.same_short(), known.same_short())
    assert torch.equal(plain.same_either(), known.same_either())


def test_the_mask_is_what_removes_the_loss_of_an_undecided_pair():
    """Both captions are true of both pictures, and picture and caption features are all equal: no negatives are left.

    With the first image's caption false of the second picture, one negative of each direction remains.
    """
    features = torch.nn.functional.normalize(torch.ones(2, 3, 4), dim=-1)

    def loss(facts, masks):
        batch = batch_of(facts, [[(1,), ()], [(2,), ()]])
        presence = Presence.of(batch, 0, near=False, known=masks == "known")
        return contrastive_losses(features, presence, SCALES, LossSection(false_negatives=masks))["contrastive"].item()

    one_of_two = pytest.approx(0.6931, abs=1e-3)  # log 2, the loss of two candidates that can't be told apart
    assert loss([(1, 2), (1, 2)], "known") == pytest.approx(0, abs=1e-6)
    assert loss([(1, 2), (2,)], "known") == one_of_two
    assert loss([(1, 2), (1, 2)], "identical") == pytest.approx(2 * 0.6931, abs=1e-3)


@pytest.mark.parametrize(
    ("facts", "claims", "message"),
    [
        (range(MAX_FACTS + 1), (1,), f"found {MAX_FACTS + 1} facts of a picture, expected at most {MAX_FACTS}"),
        ((1,), range(MAX_CLAIMS + 1), f"found {MAX_CLAIMS + 1} claims of a caption, expected at most {MAX_CLAIMS}"),
    ],
)
def test_more_than_there_is_room_for_is_an_error(facts, claims, message):
    with pytest.raises(ValueError, match=message):
        Known.of(batch_of([facts], [[claims, ()]]), 0)
    Known.of(batch_of([list(facts)[:MAX_FACTS]], [[list(claims)[:MAX_CLAIMS], ()]]), 0)


def test_it_is_cheap():
    """Milliseconds for a batch of 32; for one of 1024 no tensor of captions x pictures x claims or facts."""
    draw = random.Random(0)
    vocabulary = [draw.getrandbits(63) for _ in range(5000)]
    facts = [draw.sample(vocabulary, 200) for _ in range(1024)]
    claims = [[draw.sample(vocabulary, 6) for _ in range(2)] for _ in range(1024)]
    big, small = batch_of(facts, claims), batch_of(facts[:32], claims[:32])

    def seconds(batch, known):
        start = time.perf_counter()
        presence = Presence.unpack(Presence.of(batch, 0, near=False, known=known).pack(), 0)
        presence.same_short(), presence.same_either()
        return time.perf_counter() - start

    added = {len(batch): min(seconds(batch, True) for _ in range(5)) for batch in (small, big)}
    assert added[32] < 0.02 and added[1024] < 2.0
    with LiveBytes() as memory:
        Known.of(big, 0).truth(torch.arange(1024))
    assert memory.peak < 0.5 * 1024 * 1024 * 8 * MAX_CLAIMS
