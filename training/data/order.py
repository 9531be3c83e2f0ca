"""The order of records: a pure function of (seed, epoch), for any number of workers and processes.

A run is the infinite concatenation of its epochs. With a global batch of G, batch k is rows k*G to (k+1)*G. So a single
counter is a run's position, and nothing is dropped at the end of an epoch.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vladva_clip.scenes import stable_seed


class Slot(NamedTuple):
    """One row of the run: record `index` of source `source`, at `position` of `epoch`."""

    epoch: int
    position: int
    source: int
    index: int


class Order:
    """The order of one or several sources.

    Without weights an epoch has every record once. With weights it has as many rows as there are records, divided in
    proportion to the weights; each source is read to its end, in its own order, before it starts again.

    Groups (runs of `group_size` neighbors in a source, such as a family of scenes) are shuffled as wholes: their
    members follow one another. If all group sizes divide the batch size, no batch splits a group, with one exception:
    without weights, the leftover records of an ungrouped source beside a grouped one may shift the border.

    Args:
        lengths: number of records of each source.
        weights: share of each source; None to use each source fully.
        group_sizes: of each source; 1 by default.
        seed: any integer.
        in_turn: read the sources one after another instead of mixed.

    Raises:
        ValueError: nothing to read, weights that are not one positive number per source, a source whose length is not
            a multiple of its group size.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float] | None = None,
        group_sizes: Sequence[int] | None = None,
        seed: int = 0,
        in_turn: bool = False,
    ) -> None:
        self.lengths, self.seed, self.in_turn = tuple(lengths), seed, in_turn
        self.group_sizes = tuple(group_sizes or [1] * len(lengths))
        _check(self.lengths, weights, self.group_sizes)
        self._block = math.lcm(*self.group_sizes)
        self.counts = _shares(sum(lengths), weights, self._block) if weights else self.lengths
        self.epoch_size = sum(self.counts)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._pass = lru_cache(maxsize=2 * len(self.lengths))(self._make_pass)

    def slots(self, start: int, stop: int) -> list[Slot]:
        """Return rows `start` to `stop` of the run."""
        found = []
        while start < stop:
            epoch, position = divmod(start, self.epoch_size)
            end = min(position + stop - start, self.epoch_size)
            sources, indices = self.epoch(epoch)
            rows = zip(sources[position:end].tolist(), indices[position:end].tolist(), strict=True)
            found += [Slot(epoch, position + offset, *row) for offset, row in enumerate(rows)]
            start += end - position
        return found

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the source and the index in it of each row of an epoch, two `(epoch_size,)` int64."""
        return self._epoch(epoch)

    def _make_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        rows = [self._rows(source, epoch * count, (epoch + 1) * count) for source, count in enumerate(self.counts)]
        if self.in_turn:
            return np.repeat(np.arange(len(rows)), self.counts), np.concatenate(rows)
        return self._mixed(rows, epoch)

    def _mixed(self, rows: list[np.ndarray], epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of whole groups in shuffled order; what does not fill a block comes last."""
        block, counts = self._block, np.array(self.counts)
        blocks = np.repeat(np.arange(len(counts)), counts // block)
        sources = np.repeat(blocks[_permutation(len(blocks), self.seed, "blocks", epoch)], block)
        indices = np.empty_like(sources)
        for source, own in enumerate(rows):
            indices[sources == source] = own[: len(own) // block * block]
        rest = [own[len(own) // block * block :] for own in rows]
        rest_sources = np.repeat(np.arange(len(counts)), [len(own) for own in rest])
        return np.concatenate([sources, rest_sources]), np.concatenate([indices, *rest])

    def _rows(self, source: int, start: int, stop: int) -> np.ndarray:
        """Rows of a source's own stream, the infinite concatenation of its shuffled passes."""
        length, parts = self.lengths[source], []
        while start < stop:
            number, offset = divmod(start, length)
            part = self._pass(source, number)[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def _make_pass(self, source: int, number: int) -> np.ndarray:
        size = self.group_sizes[source]
        groups = _permutation(self.lengths[source] // size, self.seed, "pass", source, number)
        return (groups[:, None] * size + np.arange(size)).reshape(-1)


def _permutation(count: int, *key: object) -> np.ndarray:
    """Shuffle 0 to count - 1 with Philox's raw stream, which numpy guarantees not to change."""
    return np.argsort(np.random.Philox(key=stable_seed(*key)).random_raw(count), kind="stable")


def _shares(total: int, weights: Sequence[float], block: int) -> tuple[int, ...]:
    """Divide `total` rows in whole blocks, by largest remainder; every source gets at least one block."""
    blocks = max(total // block, len(weights))
    exact = np.array(weights, dtype=float) / sum(weights) * blocks
    counts = np.floor(exact).astype(int)
    for source in np.argsort(counts - exact, kind="stable")[: blocks - counts.sum()]:
        counts[source] += 1
    return tuple(int(count) * block for count in np.maximum(counts, 1))


def _check(lengths: tuple[int, ...], weights: Sequence[float] | None, group_sizes: tuple[int, ...]) -> None:
    if not lengths or min(lengths) < 1:
        raise ValueError(f"the sources have {list(lengths)} records, expected at least one source and none empty")
    if weights and (len(weights) != len(lengths) or not all(0 < weight < math.inf for weight in weights)):
        raise ValueError(f"weights are {list(weights)}, expected {len(lengths)} positive numbers, one per source")
    if len(group_sizes) != len(lengths):
        raise ValueError(f"{len(group_sizes)} group sizes for {len(lengths)} sources")
    for length, size in zip(lengths, group_sizes, strict=True):
        if size < 1 or length % size:
            raise ValueError(f"a source of {length} records does not divide into groups of {size}")
