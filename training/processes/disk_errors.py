"""Disk errors while a run logs: they end the run, or are printed at its end."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from vladva_clip.storage import disk
from vladva_training.processes.errors import RunError


@contextlib.contextmanager
def guarding(path: Path) -> Iterator[None]:
    """Turn OSErrors into a RunError that says how to continue."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} can't be written ({disk.reason(error)}); free some space, then continue from the last "
            "checkpoint with resume=true"
        ) from error


@contextlib.contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Print OSErrors instead of raising them: at the end of a run they must not hide what ended it."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):  # stderr may be on the same disk
            print(f"{path}: {error}", file=sys.stderr)
