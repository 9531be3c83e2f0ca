"""Embed all that was asked for into one file: list, compute the parts that are missing, join them.

Whatever ends it, the same call continues where it stopped.
"""

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vladva_clip.bulk import job, outputs, request
from vladva_clip.bulk.coding import coding_of
from vladva_clip.bulk.filling import Model, fill
from vladva_clip.bulk.job import Job
from vladva_clip.bulk.joining import Failures
from vladva_clip.bulk.parts import Part
from vladva_clip.bulk.request import Request
from vladva_clip.pictures.failures import Failure
from vladva_clip.storage import file_locks, sealed, whole


@dataclass(frozen=True)
class Done:
    """What came out: rows with features, D, the number of items that failed, and the first of them."""

    rows: int
    width: int
    failed: int
    first: list[Failure]


@contextmanager
def working_folder(output: Path, asked: Request, advance: Callable[[int], Any]) -> Iterator[Path]:
    """Give the folder of an output's job, with its request and the list of its files; keep other runs out.

    Until a job has begun in it, nothing in the folder is worth keeping: it goes if the block raises.

    Args:
        output: the file that will be written; the folder lies beside it.
        asked: what is to be embedded.
        advance: called with the number of files found since the last call.

    Raises:
        ValueError: the folder is of another request, or another run is writing to it.
    """
    folder = job.folder_of(output)
    folder.mkdir(parents=True, exist_ok=True)
    with file_locks.held(folder / file_locks.LOCK):
        whole.clean(folder)
        if not (folder / job.FILE).exists():  # of a run that was killed while it listed
            for path in set(folder.iterdir()) - {folder / file_locks.LOCK}:
                path.unlink()
        try:
            request.write(folder, asked, advance)
            yield folder
        except BaseException:
            if not (folder / job.FILE).exists():
                shutil.rmtree(folder)
            raise


def finish(
    output: Path,
    running: Job,
    collections: Sequence,
    model: Model,
    before: Iterable[Part] = (),
    quantized: str | None = None,
) -> Done:
    """Join a job's parts, computing damaged ones again, and list what failed beside the output; then remove the job.

    Args:
        output: the file to write.
        running: the job, with all its parts.
        collections: the job's.
        model: computes damaged parts again.
        before: rows that come first, such as those of an index that is extended.
        quantized: one of `coding.PRECISIONS`; None for float32.

    Raises:
        ExtraError: what quantizes is not installed.
        OSError: the output can't be written; the parts stay.
        ValueError: a part is damaged right after it was computed again.
    """
    before, mended = list(before), set()
    while True:
        try:
            done = _joined(output, running, collections, model, before, quantized)
            break
        except _DamagedPartError as error:
            if error.place in mended:
                raise ValueError(f"a part in {running.folder} was written, but {error}: check the disk") from error
            mended.add(error.place)
            fill(running, collections, model, [error.place], lambda count: None)
    shutil.rmtree(running.folder)
    return done


def failures_of(output: Path) -> Path:
    """Return where the items that failed are listed, one JSON object per line."""
    return output.with_name(output.name + ".failures.jsonl")


def _joined(
    output: Path,
    running: Job,
    collections: Sequence,
    model: Model,
    before: Sequence[Part],
    quantized: str | None,
) -> Done:
    def parts() -> Iterator[Part]:
        return itertools.chain(before, _read(running, collections))

    failures, coding = failures_of(output), coding_of(quantized, parts)
    with whole.scratch(failures) as place:
        (place / "columns").mkdir()
        with whole.file(output) as new, Failures(place / "new") as failed:
            written = parts(), coding, running.made_by, failed, place / "columns"
            rows = outputs.write(new, output.suffix.lower(), *written)
        if failed.count:
            whole.put(place / "new", failures)
        else:
            failures.unlink(missing_ok=True)  # of an earlier run
    first = [Failure(row.name, row.error or "") for row in failed.first]
    return Done(rows, model.model.embed_dim, failed.count, first)


class _DamagedPartError(Exception):
    def __init__(self, place: job.Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place


def _read(running: Job, collections: Sequence) -> Iterator[Part]:
    for place in running.places():
        try:
            part = running.read(place)
        except sealed.DamagedError as error:
            raise _DamagedPartError(place, str(error)) from error
        if part is None:
            raise _DamagedPartError(place, "it is not there")
        known = collections[place.collection]
        yield part if part.rows else replace(part, rows=[known.row(number) for number in place.items])
