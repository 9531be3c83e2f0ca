import numpy as np
import pytest

from vladva_training.data.order import Order


def rows(order, epoch=0):
    sources, indices = order.epoch(epoch)
    return list(zip(sources.tolist(), indices.tolist(), strict=True))


def test_an_epoch_holds_every_record_once_in_a_new_order():
    order = Order([50, 30], seed=3)
    first, second = rows(order, 0), rows(order, 1)
    everything = [(0, i) for i in range(50)] + [(1, i) for i in range(30)]
    assert sorted(first) == sorted(second) == everything
    assert first != second != everything != first


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    again = Order([50, 30], seed=3)
    rows(again, 7)  # regardless of earlier calls
    assert rows(again, 2) == rows(Order([50, 30], seed=3), 2)
    assert rows(Order([50, 30], seed=4), 2) != rows(again, 2)


def test_the_order_stays_the_same_with_every_release():
    """A checkpoint's counter is meaningless with another order, so these rows must never change."""
    assert rows(Order([6], seed=0)) == [(0, i) for i in (4, 5, 1, 0, 3, 2)]


def test_slots_continue_across_epochs():
    order = Order([7], seed=1)
    whole = order.slots(0, 21)
    assert [slot.epoch for slot in whole] == [0] * 7 + [1] * 7 + [2] * 7
    assert [slot.position for slot in whole] == [*range(7)] * 3
    assert [(slot.source, slot.index) for slot in whole[7:14]] == rows(order, 1)
    assert order.slots(0, 5) + order.slots(5, 18) + order.slots(18, 21) == whole


def test_weights_divide_an_epoch():
    order = Order([1000, 10, 200], weights=[1, 1, 2], seed=0)
    sources, indices = order.epoch(0)
    assert order.epoch_size == 1210 and np.bincount(sources).tolist() == [303, 302, 605]
    assert set(np.bincount(indices[sources == 1])) <= {30, 31}  # the small source is read to its end again and again
    assert len(set(indices[sources == 0].tolist())) == 303


def test_a_weighted_source_is_read_to_its_end_before_it_starts_again():
    order = Order([100, 20], weights=[1, 1], seed=0)
    seen = [index for epoch in range(5) for source, index in rows(order, epoch) if source == 0]
    assert len(seen) == 300 and sorted(seen[:100]) == sorted(seen[100:200]) == list(range(100))
    assert seen[:100] != seen[100:200]


def test_in_turn_sources_are_shuffled_but_not_mixed():
    order = Order([50, 30], group_sizes=[2, 3], seed=3, in_turn=True)
    sources, indices = order.epoch(0)
    assert sources.tolist() == [0] * 50 + [1] * 30
    assert sorted(indices[:50]) == [*range(50)] != indices[:50].tolist()
    assert [index // 3 for index in indices[50::3]] == [index // 3 for index in indices[52::3]]
    assert rows(order, 1) != rows(order, 0)
    weighted, _ = Order([50, 30], [1, 3], [2, 1], seed=3, in_turn=True).epoch(0)
    assert weighted.tolist() == [0] * 20 + [1] * 60


def test_sources_are_interleaved_evenly():
    sources, _ = Order([5000, 5000], weights=[3, 1], seed=0).epoch(0)
    shares = [np.mean(sources[start : start + 1000]) for start in range(0, 10000, 1000)]
    assert all(0.2 < share < 0.3 for share in shares)


@pytest.mark.parametrize("weights", [None, [1, 3]])
def test_groups_stay_whole_within_batches(weights):
    order = Order([40, 50], weights, group_sizes=[4, 1], seed=5)
    assert order.epoch_size == 90 if weights is None else order.epoch_size % 4 == 0
    sources, indices = order.epoch(0)
    members = [(at, index) for at, (source, index) in enumerate(zip(sources, indices, strict=True)) if source == 0]
    assert members and all(at % 4 == index % 4 for at, index in members)
    groups = [index // 4 for at, index in members if at % 4 == 0]
    assert groups != sorted(groups)
    for at, index in members[::4]:
        assert indices[at : at + 4].tolist() == [index, index + 1, index + 2, index + 3]


def test_groups_and_single_records_lose_nothing():
    order = Order([40, 51], group_sizes=[4, 1], seed=5)
    assert sorted(rows(order)) == [(0, i) for i in range(40)] + [(1, i) for i in range(51)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one source"),
        (([3, 0],), "none empty"),
        (([3, 4], [1.0]), "2 positive numbers"),
        (([3, 4], [1.0, 0.0]), "2 positive numbers"),
        (([3, 4], [1.0, float("nan")]), "2 positive numbers"),
        (([6], None, [4]), "does not divide into groups of 4"),
    ],
)
def test_impossible_orders_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Order(*arguments)
