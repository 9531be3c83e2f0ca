"""Features on disk: computed once, part by part, by one process or several, or by several runs at once.

A part is a fixed stretch of the items, dealt to the processes by its number and written once it is whole, under a hash
of what decides its own features. So an interrupted run goes on where it stopped, a picture that is replaced costs one
part, and every process reads what the others wrote: they must see one folder.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vladva_benchmarks import files
from vladva_training.distributed import Processes

FORMAT = 2
PART = 256  # items

Encode = Callable[[list[range]], Iterator[tuple[range, torch.Tensor]]]  # parts -> each with its (n, D), in order


@dataclass(frozen=True)
class Features:
    """`(N, D)` float32, normalised, and the seconds of one process that they cost when they were computed."""

    tensor: torch.Tensor
    seconds: float


def key(kind: str, *identity: Any) -> str:
    """Return the name of features: a hash of everything that decides them."""
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
            ValueError: a disk that is full, a file that can't be read, or what encode raises; finished parts stay.
        """
        starts = range(0, len(items), self.part)
        parts = [range(start, min(start + self.part, len(items))) for start in starts]
        places = {part: self._path(key(kind, *identity, [items[number] for number in part])) for part in parts}
        self._compute(kind, places, encode)
        self.processes.wait()
        read = [self._read(place, len(part)) for part, place in places.items()]
        return Features(torch.cat([one.tensor for one in read]), sum(one.seconds for one in read))

    def _compute(self, kind: str, places: dict[range, Path], encode: Encode) -> None:
        parts = list(places)
        found = {part for part in parts if places[part].exists()}
        some = f", {len(found)} of {len(parts)} parts found in {self.directory}" if found else ""
        self._say(
            f"  {kind}: {parts[-1].stop} items{some}"
            if len(found) < len(parts)
            else f"  {kind}: found in {self.directory}"
        )
        missing = [part for part in parts[self.processes.rank :: self.processes.world_size] if part not in found]
        start = time.perf_counter()
        for part, features in encode(missing) if missing else ():
            end = time.perf_counter()
            files.write(places[part], _bytes(features, end - start))
            start = end

    def _say(self, line: str) -> None:
        if self.processes.is_main:
            print(line, flush=True)

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
