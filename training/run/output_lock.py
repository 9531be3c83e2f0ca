"""A lock for one run at a time in an output directory, however many processes the run has."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vladva_clip.records.records import printable
from vladva_clip.storage import file_locks
from vladva_training.processes.distributed import Processes


@contextlib.contextmanager
def alone(output_dir: Path, processes: Processes) -> Iterator[None]:
    """Hold the directory's lock in the run's first process within a block.

    Raises:
        ValueError: another run holds the lock, or the directory can't be written; in every process of this run.
    """
    with contextlib.ExitStack() as stack:
        reason = _enter(stack, output_dir) if processes.is_main else ""
        if reasons := [text for text in processes.collect([reason]) if text]:
            raise ValueError(reasons[0])
        yield


def _enter(stack: contextlib.ExitStack, output_dir: Path) -> str:
    """Take the lock; return "", or the reason why it can't be taken."""
    if printable(str(output_dir)) != str(output_dir):
        return f"output_dir {output_dir} is not UTF-8, and TensorBoard can't write to it; give another one"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(file_locks.held(output_dir / file_locks.LOCK))
    except OSError as error:
        return f"output_dir {output_dir} can't be written ({error}); give another one"
    except ValueError as error:
        return f"output_dir {output_dir}: {error}"
    return ""
