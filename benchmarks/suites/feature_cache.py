"""Features on disk: computed once, part by part, by one process or several, or by several runs at once.

A part is a fixed stretch of the items, dealt to the processes by its number and written once it is whole, under a hash
of what decides its own features. So an interrupted run goes on where it stopped, a picture that is replaced costs one
part, and every process reads what the others wrote: they must see one folder.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tqdm import tqdm

from vladva_benchmarks import files
from vladva_training.distributed import Processes

FORMAT = 2
PART = 256  # items
SHOWN = 20  # unreadable items, in a message

# parts -> each with its (n, D), or with a sentence for each of its items that can't be read; in order
Encode = Callable[[list[range]], Iterator[tuple[range, torch.Tensor | list[str]]]]


class UnreadableItems(ValueError):
    """Some items can't be read; the features of all other parts are there. Raised by every process of the run alike."""

    def __init__(self, kind: str, wrong: Sequence[str], count: int) -> None:
        more = [f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        lines = [f"{len(wrong)} of {count} {kind} can't be read:", *wrong[:SHOWN], *more]
        super().__init__("\n  ".join(lines))


@dataclass(frozen=True)
class Features:
    """`(N, D)` float32, normalised, and the seconds of one process that they cost when they were computed."""

    tensor: torch.Tensor
    seconds: float


def _key(kind: str, *identity: Any) -> str:
    """The name of features: a hash of everything that decides them."""
    text = json.dumps([FORMAT, kind, *identity], sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


class FeatureCache:
    """Features below one folder."""

    def __init__(self, directory: Path, processes: Processes, part: int = PART) -> None:
        self.directory, self.processes, self.part = directory, processes, part

    def get(self, kind: str, identity: Sequence[Any], items: Sequence[Any], encode: Encode) -> Features:
        """Return the features of items; every process of the run calls this, in the same order.

        Args:
            kind: what the items are; the files' names begin with it.
            identity: what decides all features, as plain data.
            items: at least one; what tells each from others, as plain data.
            encode: computes parts that are not there.

        Raises:
            UnreadableItems: some can't be read.
            ValueError: a disk that is full, a file of features that isn't one; finished parts stay.
        """
        starts = range(0, len(items), self.part)
        parts = [range(start, min(start + self.part, len(items))) for start in starts]
        places = {part: self._path(_key(kind, *identity, [items[number] for number in part])) for part in parts}
        wrong = self.processes.collect(self._compute(kind, places, encode))  # waits until every process has written
        if wrong:
            raise UnreadableItems(kind, wrong, len(items))
        read = [self._read(place, len(part)) for part, place in places.items()]
        return Features(torch.cat([one.tensor for one in read]), sum(one.seconds for one in read))

    def _compute(self, kind: str, places: dict[range, Path], encode: Encode) -> list[str]:
        """Write this process's share of the missing parts; returns what is wrong with items that can't be read."""
        found = {part for part, place in places.items() if place.exists()}
        self._announce(kind, list(places), len(found))
        mine = list(places)[self.processes.rank :: self.processes.world_size]
        missing = [part for part in mine if part not in found]
        wrong, start = [], time.perf_counter()
        with self._bar(kind, sum(map(len, missing))) as bar:
            for part, features in encode(missing) if missing else ():
                end = time.perf_counter()
                if isinstance(features, list):
                    wrong += features
                else:
                    files.write(places[part], _bytes(features, end - start))
                bar.update(len(part))
                start = end
        return wrong

    def _announce(self, kind: str, parts: list[range], found: int) -> None:
        some = f", {found} of {len(parts)} parts found in {self.directory}" if found else ""
        line = f"{parts[-1].stop} items{some}" if found < len(parts) else f"found in {self.directory}"
        if self.processes.is_main:
            print(f"  {kind}: {line}", flush=True)

    def _bar(self, kind: str, total: int) -> tqdm:
        """The first process's share, which the others keep up with; nothing where there is nothing to do."""
        options = {"leave": False, "dynamic_ncols": True, "disable": not self.processes.is_main or not total}
        seconds = 0.1 if sys.stderr.isatty() else 30  # between two lines, of which a log file keeps every one
        return tqdm(total=total, desc=f"  {kind}", mininterval=seconds, **options)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.safetensors"

    @staticmethod
    def _read(path: Path, count: int) -> Features:
        try:
            with safe_open(path, framework="pt") as file:
                tensor, seconds = file.get_tensor("features"), float((file.metadata() or {})["seconds"])
        except (SafetensorError, OSError, LookupError, ValueError) as error:
            raise ValueError(f"{path} holds no features of ours ({error}): remove it and run again") from error
        if len(tensor) != count:
            raise ValueError(f"{path} holds {len(tensor)} features, expected {count}: remove it and run again")
        return Features(tensor, seconds)


def _bytes(features: torch.Tensor, seconds: float) -> bytes:
    return save({"features": features.float().cpu().contiguous()}, {"seconds": repr(seconds)})
