"""What the disk says while a run logs: an error that ends it, or a line at its end."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from vladva_clip.storage import disk
from vladva_training.processes.errors import RunError


@contextlib.contextmanager
def guarding(path: Path) -> Iterator[None]:
    """Turn the disk's errors into a RunError that says how to go on."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} can't be written ({disk.reason(error)}); make room, then go on from the last checkpoint with "
            "resume=true"
        ) from error


@contextlib.contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Print the disk's errors: at the end of a run they must not hide what ended it."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):  # stderr may be on the same disk
            print(f"{path}: {error}", file=sys.stderr)
