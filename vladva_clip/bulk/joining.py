"""Part files -> one file, in memory that doesn't grow with the number of rows.

`.npz` and `.safetensors` hold one array after another, so each column is collected in a file of its own first.
`.parquet` is written part by part.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from vladva_clip.bulk.coding import Coding
from vladva_clip.bulk.parts import Part, Row
from vladva_clip.pictures.failures import Failure

_COPIED = 1 << 20  # bytes at a time


@dataclass
class Columns:
    """The columns of the rows that have features, as files of a folder; and how many rows there are.

    features: as `coding` stores them. kinds: NumPy's text of five letters. names: a JSON list of texts, as bytes.
    sizes, times: int64, -1 for none.
    """

    folder: Path
    coding: Coding
    count: int = 0
    width: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    NAMES = ("features", "kinds", "names", "sizes", "times")

    def path(self, name: str) -> Path:
        """Return the file of a column."""
        return self.folder / name

    def collect(self, parts: Iterable[Part], failed: "Failures") -> None:
        """Append the rows of parts; those that failed go to `failed` instead."""
        with ExitStack() as stack:
            files = {name: stack.enter_context(open(self.path(name), "wb")) for name in self.NAMES}
            for part in parts:
                self._append(files, part, failed)
            files["names"].write(b"]" if self.count else b"[]")
        if self.coding.ranges is not None:
            self.path("ranges").write_bytes(self.coding.ranges.astype("<f4").tobytes())
        self.sizes = {path.name: path.stat().st_size for path in self.folder.iterdir()}

    def _append(self, files: dict[str, IO[bytes]], part: Part, failed: "Failures") -> None:
        kept = [number for number, row in enumerate(part.rows) if row.error is None]
        failed.add(row for row in part.rows if row.error is not None)
        self.width = self.coding.width(part.features.shape[1])  # the same in all parts of a job
        if not kept:
            return
        rows = [part.rows[number] for number in kept]
        files["features"].write(self.coding(part.features[kept]).tobytes())
        for name, values in {"sizes": [row.size for row in rows], "times": [row.time for row in rows]}.items():
            files[name].write(np.array([-1 if one is None else one for one in values], np.int64).tobytes())
        files["kinds"].write(np.array([row.kind for row in rows], "<U5").tobytes())
        names = json.dumps([row.name for row in rows])[1:-1]
        files["names"].write((b", " if self.count else b"[") + names.encode())
        self.count += len(kept)


class Failures:
    """Writes what failed as JSON lines; the file is there only if something did.

    Attributes:
        count: how many failed.
        first: the first of them.
    """

    SHOWN = 20

    def __init__(self, path: Path) -> None:
        self.path, self.count, self.first = path, 0, []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Failures":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._file:
            self._file.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows with an error."""
        for row in rows:
            if self._file is None:
                self._file = open(self.path, "wb")  # noqa: SIM115 - closed by __exit__
            self._file.write(Failure(row.name, row.error or "").line())
            self.count += 1
            if len(self.first) < self.SHOWN:
                self.first.append(row)


def copied(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, some at a time."""
    with open(path, "rb") as file:
        while some := file.read(_COPIED):
            yield some
