"""The directories of a run's checkpoints: whole or not there at all, the last ones and the best one kept."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from vladva_clip.storage import disk
from vladva_training.processes.errors import DiskError

STEP_NAME = re.compile(r"step-(\d{8,})")
SCRATCH, OUTGOING = ".writing-", ".outgoing-"
BEST = "best.json"


class CheckpointStore:
    """`OUTPUT_DIR/checkpoints/step-00000123`, one directory per checkpoint.

    A directory is written under another name, flushed to the disk and renamed, so one that has its name is whole. An
    older one goes only after a newer one is there.

    Args:
        output_dir: the run's directory.
        keep_last: number of newest checkpoints that are kept.
    """

    def __init__(self, output_dir: Path | str, keep_last: int) -> None:
        self.directory, self.keep_last = Path(output_dir) / "checkpoints", keep_last

    def path(self, step: int) -> Path:
        """Return where the checkpoint of a step is."""
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(int(name[1]) for path in self.directory.iterdir() if (name := STEP_NAME.fullmatch(path.name)))

    def clean(self) -> None:
        """Remove what a killed write left behind."""
        remove_leftovers(self.directory)

    def write(self, step: int, fill: Callable[[Path], None]) -> Path:
        """Write the checkpoint of a step.

        Args:
            step: which; there must be none of it yet.
            fill: writes its files into the directory it is called with.

        Raises:
            DiskError: the disk is full or fails; the older checkpoints are intact.
        """
        with self.guarding(self.path(step)):
            replace_directory(self.path(step), fill)
        return self.path(step)

    def rewrite(self, step: int, name: str, data: dict) -> None:
        """Replace one JSON file of a checkpoint, at once."""
        with self.guarding(self.path(step)):
            write_json(self.path(step) / name, data)

    def mark_best(self, best: dict | None) -> None:
        """Write `best.json`, which names the best checkpoint and its figure; without a best one there is no file."""
        place = self.directory / BEST
        with self.guarding(place):
            if best is None:
                place.unlink(missing_ok=True)
            else:
                write_json(place, best)

    def prune(self, best_step: int | None) -> None:
        """Remove all checkpoints but the newest `keep_last` and the best."""
        for step in self.steps()[: -self.keep_last]:
            if step != best_step:
                _remove(self.path(step))

    @contextlib.contextmanager
    def guarding(self, path: Path) -> Iterator[None]:
        """Turn the disk's errors within the block into a DiskError that says what is lost and what is not."""
        try:
            with disk.writing(path):
                yield
        except OSError as error:
            reason = error.strerror.rpartition("can't be written: ")[2]  # of a part of it, beside its place
            raise DiskError(
                f"{path} can't be written: {reason}; {self.last_good()}. Then go on with resume=true"
            ) from error

    def last_good(self) -> str:
        """Say which checkpoint a run can go on from."""
        steps = self.steps()
        return f"the last good checkpoint is {self.path(steps[-1])}" if steps else "there is no checkpoint yet"


def replace_directory(directory: Path, fill: Callable[[Path], None]) -> None:
    """Write a directory beside its place, flush it and rename it into place, where it takes an older one's.

    Args:
        directory: its place.
        fill: writes its files into the directory it is called with.
    """
    scratch = directory.with_name(SCRATCH + directory.name)
    scratch.mkdir(parents=True)
    try:
        fill(scratch)
        _flush_tree(scratch)
        if directory.exists():
            os.rename(directory, directory.with_name(OUTGOING + directory.name))
        os.rename(scratch, directory)
        _flush(directory.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(directory.with_name(OUTGOING + directory.name), ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what killed calls of `replace_directory` and `write_json` left in a directory."""
    if not directory.is_dir():
        return
    for path in directory.glob(OUTGOING + "*"):
        if not (place := path.with_name(path.name.removeprefix(OUTGOING))).exists() and not STEP_NAME.match(place.name):
            os.rename(path, place)  # the end came between the two renames
    for path in [*directory.glob(SCRATCH + "*"), *directory.glob(OUTGOING + "*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file beside its place and rename it."""
    scratch = path.with_name(SCRATCH + path.name)
    try:
        scratch.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        _flush(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _remove(directory: Path) -> None:
    """Remove a checkpoint: out of its name first, so that no half of it is ever taken for a whole."""
    outgoing = directory.with_name(OUTGOING + directory.name)
    os.rename(directory, outgoing)
    shutil.rmtree(outgoing)


def _flush_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        _flush(path)
    _flush(directory)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
