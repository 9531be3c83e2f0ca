"""Embed all that was asked for into one file: list, compute the parts that are missing, join them.

Whatever ends it, the same call continues where it stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vladva_clip.bulk import catalog, job, outputs
from vladva_clip.bulk.catalog import Catalog
from vladva_clip.bulk.collections import Texts, is_table, open_table
from vladva_clip.bulk.filling import Model, fill
from vladva_clip.bulk.job import Job
from vladva_clip.bulk.joining import Failures
from vladva_clip.bulk.parts import Part
from vladva_clip.pictures.failures import Failure
from vladva_clip.pictures.listing import stream_pictures
from vladva_clip.storage import file_locks, json_files, sealed, whole

MISSED = "missed.json"  # words that name nothing, folders that can't be read


@dataclass(frozen=True)
class Request:
    """What is to be embedded: words that name pictures, shards or tables, and texts.

    directory: where relative paths start.
    """

    words: Sequence[str]
    texts: Sequence[str]
    directory: str

    def plain(self) -> dict[str, Any]:
        """Return what tells it from other requests."""
        texts = hashlib.sha256(json.dumps(list(self.texts)).encode()).hexdigest()
        return {"words": list(self.words), "texts": texts, "directory": self.directory}


@dataclass(frozen=True)
class Done:
    """What came out: rows with features, D, the number of items that failed, and the first of them."""

    rows: int
    width: int
    failed: int
    first: list[Failure]


@contextmanager
def listed(output: Path, request: Request, advance: Callable[[int], Any]) -> Iterator[list]:
    """Make the job's folder, list the picture files in it once, and open the collections; keeps other runs out.

    Args:
        output: the file that will be written; the folder lies beside it.
        request: what is to be embedded.
        advance: called with the number of files found since the last call.

    Raises:
        ValueError: the folder is of another request, or another run is writing to it; a table that can't be opened.
    """
    folder = job.folder_of(output)
    folder.mkdir(parents=True, exist_ok=True)
    with file_locks.held(folder / file_locks.LOCK):
        _require_same(folder, request)
        whole.clean(folder)
        files = [word for word in request.words if not is_table(word)]
        if files and not (folder / catalog.FILE).exists():
            _list(folder, files, advance)
        tables = [open_table(word) for word in request.words if is_table(word)]
        yield [*([Catalog(folder / catalog.FILE)] if files else []), *tables, Texts(list(request.texts))]


def _require_same(folder: Path, request: Request) -> None:
    before = job.asked(folder)
    if before is not None and before != request.plain():
        raise ValueError(
            f"{folder} holds what an interrupted run of another request has done (of {' '.join(before['words'])}, in "
            f"{before['directory']}): run that one again, or remove the folder"
        )


def _list(folder: Path, words: Sequence[str], advance: Callable[[int], Any]) -> None:
    missed: list[Failure] = []
    catalog.write(folder / catalog.FILE, stream_pictures(words, missed), advance)
    plain = [[one.name, one.reason] for one in dict.fromkeys(missed)]
    whole.write(folder / MISSED, json.dumps(plain).encode())


def missed(output: Path) -> list[Failure]:
    """Return the words that named nothing, and the folders that could not be read."""
    path = job.folder_of(output) / MISSED
    return [Failure(*one) for one in json_files.parse(path.read_bytes(), json_files.RECORDS)] if path.exists() else []


def opened(output: Path, request: Request, collections: Sequence, made_by: Mapping[str, Any]) -> Job:
    """Begin the job of an output, or continue it.

    Raises:
        ValueError: what is listed has changed since it began.
    """
    folder, lengths = job.folder_of(output), [len(one) for one in collections]
    if job.asked(folder) is None:
        return job.begin(folder, request.plain(), made_by, lengths)
    found = job.resume(folder)
    if list(found.lengths) != lengths:
        raise ValueError(f"{folder} is of other data ({found.lengths} items, now {lengths}): remove it to begin again")
    return found


def finish(output: Path, running: Job, collections: Sequence, model: Model) -> Done:
    """Join a job's parts, computing damaged ones again, and list what failed beside the output; then remove the job.

    Raises:
        OSError: the output can't be written; the parts stay.
    """
    while True:
        try:
            done = _joined(output, running, model)
            break
        except _DamagedPartError as error:
            fill(running, collections, model, [error.place], lambda count: None)
    shutil.rmtree(running.folder)
    return done


def failures_of(output: Path) -> Path:
    """Return where the items that failed are listed, one JSON object per line."""
    return output.with_name(output.name + ".failures.jsonl")


def _joined(output: Path, running: Job, model: Model) -> Done:
    failures = failures_of(output)
    with whole.scratch(failures) as place:
        (place / "columns").mkdir()
        with whole.file(output) as new, Failures(place / "new") as failed:
            parts, suffix = _read(running), output.suffix.lower()
            rows = outputs.write(new, suffix, parts, running.made_by, failed, place / "columns")
        if failed.count:
            whole.put(place / "new", failures)
        else:
            failures.unlink(missing_ok=True)  # of an earlier run
    first = [Failure(row.name, row.error or "") for row in failed.first]
    return Done(rows, model.model.embed_dim, failed.count, first)


class _DamagedPartError(Exception):
    def __init__(self, place: job.Place) -> None:
        super().__init__(place)
        self.place = place


def _read(running: Job) -> Iterator[Part]:
    for place in running.places():
        try:
            part = running.read(place)
        except sealed.DamagedError as error:
            raise _DamagedPartError(place) from error
        if part is None:
            raise _DamagedPartError(place)
        yield part
