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
from vladva_clip.bulk.parts import Part, Row
from vladva_clip.bulk.request import Request
from vladva_clip.pictures.failures import Failure
from vladva_clip.storage import file_locks, sealed, whole

_JOINED = "joined"  # which file came out, in the folder of its job


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
        ValueError: the folder is somebody's own, or of another request, or another run is writing to it.
    """
    folder = job.folder_of(output)
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if names and not names & {file_locks.LOCK, request.FILE, job.FILE}:
        raise ValueError(f"{folder} holds files of somebody else; its name is needed for {output}: choose another name")
    with file_locks.held(folder / file_locks.LOCK):
        whole.clean(folder)
        if not (folder / job.FILE).exists() or _is_joined(folder, output):  # of a run that was killed in its beginning
            for path in set(folder.iterdir()) - {folder / file_locks.LOCK}:  # or after its end
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
    missed: Sequence[Failure] = (),
) -> Done:
    """Join a job's parts, computing damaged ones again, and list what failed beside the output; then remove the job.

    Args:
        output: the file to write.
        running: the job, with all its parts.
        collections: the job's.
        model: computes damaged parts again.
        before: rows that come first, such as those of an index that is extended.
        quantized: one of `coding.PRECISIONS`; None for float32.
        missed: what failed before it became an item, such as a word that names no file; it is listed first.

    Raises:
        ExtraError: what quantizes is not installed.
        OSError: the output can't be written; the parts stay.
        ValueError: a part is damaged right after it was computed again.
    """
    before, mended = list(before), set()
    while True:
        try:
            done = _joined(output, running, collections, model, before, quantized, missed)
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
    missed: Sequence[Failure],
) -> Done:
    def parts() -> Iterator[Part]:
        return itertools.chain(before, _read(running, collections))

    failures, coding = failures_of(output), coding_of(quantized, parts)
    with whole.scratch(failures) as place:
        (place / "columns").mkdir()
        with whole.file(output) as new:
            with Failures(place / "new") as failed:
                failed.add(Row(one.name, error=one.reason) for one in missed)
                written = parts(), coding, running.made_by, failed, place / "columns"
                rows = outputs.write(new, output.suffix.lower(), *written)
            if failed.count:
                whole.put(place / "new", failures)
            else:
                failures.unlink(missing_ok=True)  # of an earlier run
            whole.write(running.folder / _JOINED, _identity(new))
    first = [Failure(row.name, row.error or "") for row in failed.first]
    return Done(rows, model.model.embed_dim, failed.count, first)


def _identity(path: Path) -> bytes:
    """What stays of a file when it is renamed, and changes when it is replaced."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()


def _is_joined(folder: Path, output: Path) -> bool:
    """Whether a job was killed after its output had taken its place, before its folder was gone."""
    note = folder / _JOINED
    return note.exists() and output.exists() and note.read_bytes() == _identity(output)


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
