"""Features on disk: what is computed again, and runs side by side."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from tests.support import damage
from vladva_clip.bulk.feature_cache import FeatureCache
from vladva_clip.bulk.parts import Part
from vladva_training.processes.distributed import Processes

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

    def __call__(self, parts: list[range]) -> Iterator[tuple[range, Part]]:
        for part in parts:
            self.asked += [self.items[number] for number in part]
            yield part, Part(torch.tensor([[float(self.items[number])] * 2 for number in part]))


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

    def encode(parts: list[range]) -> Iterator[tuple[range, Part]]:
        for number, computed in enumerate(Encoding(ITEMS)(parts)):
            if number == 2:
                assert embed(other, ITEMS) == ITEMS[8:]
            yield computed

    assert mine.get("numbers", ["weights"], ITEMS, encode).tensor[:, 0].tolist() == ITEMS
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("harm", damage.TENSORS.values(), ids=damage.TENSORS)
def test_a_damaged_part_is_computed_again_and_that_is_said(tmp_path, processes, capsys, harm):
    cache = FeatureCache(tmp_path, processes, part=4)
    embed(cache, ITEMS)
    path = next(path for path in sorted(tmp_path.iterdir()) if path.stat().st_size == _largest(tmp_path))
    capsys.readouterr()
    harm(path)
    assert len(embed(cache, ITEMS)) == 4
    assert (f"numbers: {path} is damaged" in capsys.readouterr().out) == (harm is not damage.link_to_nothing)
    assert embed(cache, ITEMS) == []


def test_a_folder_in_a_parts_place(tmp_path, processes):
    cache = FeatureCache(tmp_path, processes, part=4)
    embed(cache, ITEMS)
    path = next(tmp_path.iterdir())
    damage.folder(path)
    with pytest.raises(ValueError, match=f"{path} can't be written"):
        embed(cache, ITEMS)


def test_parts_that_were_exchanged(tmp_path, processes, capsys):
    """Whole files of equal shape, under each other's names."""
    cache = FeatureCache(tmp_path, processes, part=5)
    embed(cache, ITEMS)
    first, second = tmp_path.iterdir()
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    assert embed(cache, ITEMS) == ITEMS and capsys.readouterr().out.count("sha256 differs") == 2


def _largest(directory: Path) -> int:
    return max(path.stat().st_size for path in directory.iterdir())
