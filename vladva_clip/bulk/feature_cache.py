"""Features kept for later runs: computed once, part by part, by one process or several, or by several runs at once.

A job (`vladva_clip.bulk.job`) ends in one file; these parts stay, each under a name that says what is in it. A part is
a fixed range of the items. Parts are assigned to the processes by number and
written once complete, under a hash of everything that decides their features. So an interrupted run continues where it
stopped, a replaced picture costs one part, and every process reads what the others wrote: they must share one folder.
A damaged part is computed again, with a message.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from vladva_clip.bulk.parts import Part, Parts, Row
from vladva_clip.storage import disk, sealed

FORMAT = 4
PART = 256  # items
SHOWN = 20  # unreadable items, in a message

# ranges of items -> in order, each with its part, whose rows name the items or are none
Encode = Callable[[list[range]], Iterator[tuple[range, Part]]]


class Sharing(Protocol):
    """This process and the others of its run, such as `vladva_training.processes.distributed.Processes`."""

    rank: int
    world_size: int

    def collect(self, items: list) -> list:
        """Return the processes' lists as one, in rank order; all must call it."""
        ...


class UnreadableItems(ValueError):
    """Some items can't be read; the features of all other parts are stored. Every process of the run raises it."""

    def __init__(self, kind: str, wrong: Sequence[str], count: int) -> None:
        more = [f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        lines = [f"{len(wrong)} of {count} {kind} can't be read:", *wrong[:SHOWN], *more]
        super().__init__("\n  ".join(lines))


@dataclass(frozen=True)
class Features:
    """`(N, D)` float32, normalized, and the seconds of one process that it took to compute them."""

    tensor: torch.Tensor
    seconds: float


class NoCache:
    """Computes features each time and keeps none: for pictures that are drawn in memory."""

    def get(self, kind: str, identity: Sequence[Any], items: Sequence[Any], encode: Encode) -> Features:
        """Return the features of items, as `FeatureCache.get`.

        Raises:
            UnreadableItems: some can't be read.
        """
        start = time.perf_counter()
        ((_, part),) = encode([range(len(items))])
        if wrong := _unreadable(part):
            raise UnreadableItems(kind, wrong, len(items))
        return Features(part.features, time.perf_counter() - start)


def _unreadable(part: Part) -> list[str]:
    """An error text for each item of a part that can't be read."""
    return [_said(row) for row in part.rows if row.error is not None]


def _said(row: Row) -> str:
    known = row.error.startswith("is not a readable picture")
    return f"{row.name} {row.error}" if known else f"{row.name} can't be read ({row.error}): get it again"


def _key(kind: str, *identity: Any) -> str:
    """The name of a part: a hash of everything that decides its features."""
    text = json.dumps([FORMAT, kind, *identity], sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


class FeatureCache:
    """Features stored in one folder."""

    def __init__(self, directory: Path, processes: Sharing, part: int = PART) -> None:
        self.directory, self.processes, self.part, self._parts = directory, processes, part, Parts(directory)
        self._is_main = processes.rank == 0

    def get(self, kind: str, identity: Sequence[Any], items: Sequence[Any], encode: Encode) -> Features:
        """Return the features of items. Every process of the run must call this, in the same order.

        Args:
            kind: what the items are; file names begin with it.
            identity: what decides all features, as plain data.
            items: at least one; what distinguishes each from others, as plain data.
            encode: computes missing parts.

        Raises:
            UnreadableItems: some can't be read.
            ValueError: the disk is full, or a part is damaged right after it was written; finished parts stay.
        """
        starts = range(0, len(items), self.part)
        parts = [range(start, min(start + self.part, len(items))) for start in starts]
        names = {part: _key(kind, *identity, [items[number] for number in part]) for part in parts}
        found = self._find(kind, names)
        wrong = self.processes.collect(self._compute(kind, names, found, encode))  # waits until all have written
        if wrong:
            raise UnreadableItems(kind, wrong, len(items))
        read = [found.get(part) or self._read_written(name, len(part)) for part, name in names.items()]
        return Features(torch.cat([one.tensor for one in read]), sum(one.seconds for one in read))

    def _find(self, kind: str, names: dict[range, str]) -> dict[range, Features]:
        """Read the parts that are there, and report damaged ones."""
        found = {}
        for part, name in names.items():
            try:
                features = self._read(name, len(part))
            except sealed.DamagedError as error:
                self._say(f"  {kind}: {self._parts.path(name)} is damaged ({error}); computing it again")
            else:
                found |= {part: features} if features else {}
        some = f", {len(found)} of {len(names)} parts found in {self.directory}" if found else ""
        count = f"{max(part.stop for part in names)} items{some}"
        self._say(f"  {kind}: {count if len(found) < len(names) else f'found in {self.directory}'}")
        return found

    def _compute(self, kind: str, names: dict[range, str], found: dict[range, Features], encode: Encode) -> list[str]:
        """Write this process's share of the missing parts; returns the error texts of unreadable items."""
        mine = list(names)[self.processes.rank :: self.processes.world_size]
        missing = [part for part in mine if part not in found]
        wrong, start = [], time.perf_counter()
        with self._bar(kind, sum(map(len, missing))) as bar:
            for items, part in encode(missing) if missing else ():
                end = time.perf_counter()
                if unreadable := _unreadable(part):
                    wrong += unreadable
                else:
                    self._write(names[items], replace(part, rows=(), seconds=end - start))
                bar.update(len(items))
                start = end
        return wrong

    def _say(self, line: str) -> None:
        if self._is_main:
            print(line, flush=True)

    def _bar(self, kind: str, total: int) -> tqdm:
        """Shows the first process's share, as the others run at the same pace; hidden if nothing is to be done."""
        options = {"leave": False, "dynamic_ncols": True, "disable": not self._is_main or not total}
        # a log file keeps every line: it gets one each half minute, and none of short work
        often = {"mininterval": 0.1} if sys.stderr.isatty() else {"mininterval": 30, "delay": 30}
        return tqdm(total=total, desc=f"  {kind}", **often, **options)

    def _write(self, name: str, part: Part) -> None:
        try:
            self._parts.write(name, part)
        except OSError as error:
            raise ValueError(disk.refusal(self._parts.path(name), error)) from error

    def _read(self, name: str, count: int) -> Features | None:
        found = self._parts.read(name, count)
        return found and Features(found.features, found.seconds)

    def _read_written(self, name: str, count: int) -> Features:
        """Read a part that a process has just written."""
        path = self._parts.path(name)
        try:
            features = self._read(name, count)
        except sealed.DamagedError as error:
            raise ValueError(f"{path} was written, but {error}: check the disk, and run again") from error
        if features is None:
            raise ValueError(f"{path} was written, but is not there: all processes must share one folder")
        return features
