"""Features on disk: what is computed again, and runs side by side."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from vladva_benchmarks.suites.feature_cache import FeatureCache
from vladva_training.distributed import Processes

ITEMS = list(range(10))


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    alone = Processes.start()
    yield alone
    alone.end()


class Encoding:
    """Computes an item's feature from the item, and remembers which it was asked for."""

    def __init__(self, items: Sequence[int]) -> None:
        self.items, self.asked = items, []

    def __call__(self, parts: list[range]) -> Iterator[tuple[range, torch.Tensor]]:
        for part in parts:
            self.asked += [self.items[number] for number in part]
            yield part, torch.tensor([[float(self.items[number])] * 2 for number in part])


def embed(cache: FeatureCache, items: Sequence[int], identity: str = "weights") -> list[int]:
    """Check the features of all items; returns which were computed."""
    encoding = Encoding(items)
    features = cache.get("numbers", [identity], items, encoding)
    assert features.tensor.tolist() == [[item, item] for item in items] and features.seconds > 0
    return encoding.asked


def test_only_the_part_of_a_changed_item_is_computed_again(tmp_path, processes):
    """A picture that was replaced, and items that came at the end."""
    cache = FeatureCache(tmp_path, processes, part=4)
    assert embed(cache, ITEMS) == ITEMS
    assert embed(cache, ITEMS) == []
    assert embed(cache, [*ITEMS[:5], 50, *ITEMS[6:]]) == [4, 50, 6, 7]
    assert embed(cache, [*ITEMS, 10]) == [8, 9, 10]
    assert embed(cache, ITEMS, "other weights") == ITEMS


def test_an_order_of_its_own(tmp_path, processes):
    cache = FeatureCache(tmp_path, processes, part=4)
    embed(cache, ITEMS)
    assert embed(cache, ITEMS[::-1]) == ITEMS[::-1]


def test_another_run_over_the_same_folder_at_once(tmp_path, processes):
    """It comes and is done when this one has half its parts; neither takes anything from the other."""
    mine, other = (FeatureCache(tmp_path, processes, part=4) for _ in range(2))

    def encode(parts: list[range]) -> Iterator[tuple[range, torch.Tensor]]:
        for number, computed in enumerate(Encoding(ITEMS)(parts)):
            if number == 2:
                assert embed(other, ITEMS) == ITEMS[8:]
            yield computed

    assert mine.get("numbers", ["weights"], ITEMS, encode).tensor[:, 0].tolist() == ITEMS
    assert len(list(tmp_path.iterdir())) == 3


def test_a_part_of_another_length(tmp_path: Path, processes):
    cache = FeatureCache(tmp_path, processes, part=4)
    embed(cache, ITEMS)
    whole, short = sorted(tmp_path.iterdir(), key=lambda path: -path.stat().st_size)[::2]
    whole.write_bytes(short.read_bytes())
    with pytest.raises(ValueError, match=f"{whole} holds 2 features, expected 4: remove it and run again"):
        embed(cache, ITEMS)
