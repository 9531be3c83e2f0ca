"""The directories of a run's checkpoints: whole or not there at all. The newest ones and the best one are kept."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from vladva_clip.storage import disk, whole
from vladva_training.processes.errors import DiskError

STEP_NAME = re.compile(r"step-(\d{8,})")
BEST = "best.json"


class CheckpointStore:
    """`OUTPUT_DIR/checkpoints/step-00000123`, one directory per checkpoint.

    A directory with such a name is whole (`vladva_clip.storage.whole`). An older one is removed only after a newer one
    is in place.

    Args:
        output_dir: the run's directory.
        keep_last: how many of the newest checkpoints are kept.
    """

    def __init__(self, output_dir: Path | str, keep_last: int) -> None:
        self.directory, self.keep_last = Path(output_dir) / "checkpoints", keep_last

    def path(self, step: int) -> Path:
        """Return the place of a step's checkpoint."""
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(int(name[1]) for path in self.directory.iterdir() if (name := STEP_NAME.fullmatch(path.name)))

    def clean(self) -> None:
        """Remove what killed writes left behind; no other process may be writing."""
        whole.clean(self.directory)

    def write(self, step: int, fill: Callable[[Path], None]) -> Path:
        """Write the checkpoint of a step.

        Args:
            step: of a checkpoint that doesn't exist yet.
            fill: called with an empty directory, to write the files there.

        Raises:
            DiskError: the disk is full or fails; the older checkpoints are intact.
        """
        with self.guarding(self.path(step)), whole.folder(self.path(step)) as directory:
            fill(directory)
        return self.path(step)

    def rewrite(self, step: int, name: str, data: dict) -> None:
        """Replace one JSON file of a checkpoint."""
        with self.guarding(self.path(step)):
            write_json(self.path(step) / name, data)

    def mark_best(self, best: dict | None) -> None:
        """Write `best.json`, which names the best checkpoint and its score; remove it for None."""
        place = self.directory / BEST
        with self.guarding(place):
            if best is None:
                place.unlink(missing_ok=True)
            else:
                write_json(place, best)

    def prune(self, best_step: int | None) -> None:
        """Remove all checkpoints except the newest `keep_last` and the best."""
        for step in self.steps()[: -self.keep_last]:
            if step != best_step:
                whole.remove(self.path(step))

    @contextlib.contextmanager
    def guarding(self, path: Path) -> Iterator[None]:
        """Turn errors of writing in this block into a DiskError that names the last good checkpoint."""
        try:
            with disk.writing(path):
                yield
        except OSError as error:
            raise DiskError(
                f"{path} can't be written: {disk.reason(error)}; {self.last_good()}. Then go on with resume=true"
            ) from error

    def last_good(self) -> str:
        """Return a clause that names the newest checkpoint, from which a run can go on."""
        steps = self.steps()
        return f"the last good checkpoint is {self.path(steps[-1])}" if steps else "there is no checkpoint yet"


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file, whole or not at all."""
    whole.write(path, (json.dumps(data, indent=2) + "\n").encode())
