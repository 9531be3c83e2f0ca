"""Part files: the features of consecutive items, written once complete, each sealed with its name.

A part that is damaged, replaced or renamed is found out (`vladva_clip.storage.sealed`), so that it is computed again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from vladva_clip.storage import json_files, sealed, whole

TENSOR, ROWS, SECONDS = "features", "rows", "seconds"
_ROW_BYTES = 1 << 14  # of the longest row: a path of 4096 bytes, escaped, and the reason of its failure
_REASON = 1000  # characters of a failure's reason


class Row(NamedTuple):
    """What a row of features is of.

    name: a path, a key or a text; bytes of a path that are not UTF-8 are surrogate escapes. kind: "image" or "text".
    size: bytes of its file, None for others. time: when its file was last changed, nanoseconds of the epoch. error: why
    it has no features, None if it has.
    """

    name: str
    kind: str = "image"
    size: int | None = None
    time: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Part:
    """Features `(n, D)` float32, zeros for items that failed; rows that say of what, or none; seconds that it took."""

    features: torch.Tensor
    rows: Sequence[Row] = ()
    seconds: float = 0.0


class Parts:
    """The part files of a folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        """Return a part's place."""
        return self.directory / f"{name}.safetensors"

    def write(self, name: str, part: Part) -> None:
        """Write a part, whole or not at all.

        Raises:
            OSError: it can't be written.
        """
        whole.write(self.path(name), _content(name, part))

    def read(self, name: str, count: int) -> Part | None:
        """Read the part of some items; None if it is not there.

        Raises:
            DamagedError: the file is anything else.
        """
        found = sealed.read_tensors(self.path(name), name, {TENSOR: (count, -1)}, count * _ROW_BYTES)
        if found is None:
            return None
        tensors, details = found
        rows = json_files.parse(details[ROWS], json_files.RECORDS)
        return Part(tensors[TENSOR], [Row(*row) for row in rows], float(details[SECONDS]))


def _content(name: str, part: Part) -> bytes:
    """Return the bytes of a part's file."""
    rows = [(*row[:-1], row.error and row.error[:_REASON]) for row in part.rows]
    details = {SECONDS: repr(part.seconds), ROWS: json.dumps(rows)}
    return sealed.tensors(name, {TENSOR: part.features.float()}, details)
