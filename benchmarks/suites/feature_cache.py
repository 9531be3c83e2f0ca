"""Features on disk: computed once for a key, part by part, by one process or several.

A part is a fixed stretch of the items, dealt to the processes by its number and written once it is whole; so an
interrupted run goes on where it stopped, and every process reads what the others wrote. When all parts are there they
become one file. The processes must see one folder.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vladva_benchmarks import files
from vladva_training.distributed import Processes

FORMAT = 1
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

    def get(self, key: str, count: int, encode: Encode) -> Features:
        """Return the features of a key; every process of the run calls this, in the same order.

        Args:
            key: of `key`.
            count: items.
            encode: computes parts that are not there.

        Raises:
            ValueError: a disk that is full, a file that can't be read, or what encode raises; finished parts stay.
        """
        whole = self.directory / f"{key}.safetensors"
        if not whole.exists():
            parts = [range(start, min(start + self.part, count)) for start in range(0, count, self.part)]
            self._compute(key, parts, encode)
            self.processes.wait()
            if self.processes.is_main:
                self._join(whole, key, parts)
            self.processes.wait()
        else:
            self._say(f"  {key}: found in {self.directory}")
        return self._read(whole, count)

    def _compute(self, key: str, parts: list[range], encode: Encode) -> None:
        found = [part for part in parts if self._path(key, part).exists()]
        self._say(f"  {key}: {parts[-1].stop} items" + (f", {len(found)} of {len(parts)} parts found" if found else ""))
        missing = [part for part in parts[self.processes.rank :: self.processes.world_size] if part not in found]
        start = time.perf_counter()
        for part, features in encode(missing) if missing else ():
            end = time.perf_counter()
            files.write(self._path(key, part), _bytes(features, end - start))
            start = end

    def _join(self, whole: Path, key: str, parts: list[range]) -> None:
        read = [self._read(self._path(key, part), len(part)) for part in parts]
        features = torch.cat([one.tensor for one in read])
        files.write(whole, _bytes(features, sum(one.seconds for one in read)))
        shutil.rmtree(self._path(key, parts[0]).parent)

    def _say(self, line: str) -> None:
        if self.processes.is_main:
            print(line, flush=True)

    def _path(self, key: str, part: range) -> Path:
        return self.directory / f"{key}.parts" / f"{part.start:08}-{part.stop:08}.safetensors"

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
