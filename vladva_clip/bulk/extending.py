"""What of a list of files an index has already: only new and changed ones are embedded."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vladva_clip.bulk import catalog, request
from vladva_clip.bulk.catalog import Catalog
from vladva_clip.bulk.collections import RecordPictures, Unopened, open_or_miss
from vladva_clip.bulk.job import SIZE
from vladva_clip.bulk.parts import Part, Row
from vladva_clip.index.codes import Codes
from vladva_clip.index.store import Index
from vladva_clip.storage import json_files, whole

KEPT, VANISHED = "kept.npy", "vanished.json"


@dataclass(frozen=True)
class Overlap:
    """numbers: `(n,)` int64, the files to embed. kept: `(m,)` int64, the index's rows that stay. vanished: how many of
    these are of files that are not there any more, and the first of their names."""

    numbers: np.ndarray
    kept: np.ndarray
    vanished: int
    first: list[str]


def overlap_of(folder: Path, index: Index) -> Overlap:
    """Compare an index with the files of a job that extends it, once; the job then has only the new and changed ones.

    Raises:
        ValueError: as `compare`.
    """
    places = folder / request.SELECTED, folder / KEPT, folder / VANISHED
    if not all(place.exists() for place in places):
        files, asked = folder / catalog.FILE, request.read(folder)
        found = compare(index, Catalog(files, asked.directory) if files.exists() else None)
        for number, word in enumerate(asked.tables):
            _save(request.selected(folder, number), new_records(index, open_or_miss(word, asked.directory)))
        whole.write(places[2], json.dumps([found.vanished, found.first]).encode())
        for place, numbers in zip(places, (found.numbers, found.kept), strict=False):
            _save(place, numbers)
    vanished, first = json_files.parse(places[2].read_bytes(), json_files.RECORDS)
    return Overlap(np.load(places[0]), np.load(places[1]), vanished, first)


def _save(place: Path, numbers: np.ndarray) -> None:
    with whole.file(place) as new, open(new, "wb") as file:
        np.save(file, numbers)


def new_records(index: Index, records: RecordPictures | Unopened) -> np.ndarray:
    """Return the numbers `(n,)` of the records of a table or of shards whose names an index lacks."""
    known = {name for row, name in enumerate(index.names) if index.kinds[row] == "image"}
    numbers = (number for number in range(len(records)) if records.row(number).name not in known)
    return np.fromiter(numbers, np.int64)


def compare(index: Index, files: Catalog | None, shown: int = 20) -> Overlap:
    """Compare an index with a list of files, by path, size and time.

    A changed file's row is dropped, since the file is embedded again. Rows of vanished files stay, and of those that
    are not listed. A file that is listed under another name keeps the row's.

    Args:
        index: with sizes and times.
        files: what is there now, with the index's directory; None for no files.
        shown: how many names of vanished files are returned.

    Raises:
        ValueError: the index has no sizes and times, or is quantized.
    """
    if isinstance(index.features, Codes):
        raise ValueError("a quantized index can't be extended, since new rows may lie outside its ranges: embed again")
    if index.sizes is None or index.times is None:
        raise ValueError("the index is of an earlier release, which kept no sizes and times: embed again")
    directory = str(index.made_by.get("directory", ""))
    rows = {row: name for row, name in enumerate(index.names) if index.sizes[row] >= 0}
    numbers, kept = [], np.ones(len(index.names), bool)
    for number, row in _matched(rows, directory, files):
        found = files.row(number)
        if row is None or (found.error is None and _stated(found) != (int(index.sizes[row]), int(index.times[row]))):
            numbers.append(number)
            if row is not None:
                kept[row] = False
    vanished = [name for name in rows.values() if not os.path.exists(os.path.join(directory, name))]
    return Overlap(np.array(sorted(numbers), np.int64), np.flatnonzero(kept), len(vanished), vanished[:shown])


def _matched(rows: dict[int, str], directory: str, files: Catalog | None) -> Iterator[tuple[int, int | None]]:
    """Yield each file's number and the row of the same file, if there is one: by path, and of the rest by real path."""
    by_path = {os.path.abspath(os.path.join(directory, name)): row for row, name in rows.items()}
    unmatched = []
    for number in range(len(files or ())):
        row = by_path.pop(os.path.abspath(files.place(number)), None)
        if row is None:
            unmatched.append(number)
        else:
            yield number, row
    by_real = {os.path.realpath(path): row for path, row in by_path.items()} if unmatched else {}
    for number in unmatched:
        yield number, by_real.pop(os.path.realpath(files.place(number)), None)


def _stated(found: Row) -> tuple[int | None, int | None]:
    return found.size, found.time


def parts_of(index: Index, kept: np.ndarray) -> Iterator[Part]:
    """Yield some rows of an index as parts."""
    for start in range(0, len(kept), SIZE):
        some = kept[start : start + SIZE]
        yield Part(torch.from_numpy(index.features[some]), [_row(index, int(number)) for number in some])


def _row(index: Index, number: int) -> Row:
    is_file = index.sizes is not None and index.sizes[number] >= 0
    stated = (int(index.sizes[number]), int(index.times[number])) if is_file else (None, None)
    return Row(index.names[number], index.kinds[number], *stated)
