"""Saves the state before an error ends a run: that of the last complete step, by the first process alone."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vladva_clip.interface.addresses import without_addresses
from vladva_clip.storage import disk
from vladva_training.processes.errors import DiskError, RunError
from vladva_training.processes.one_line import in_one_line
from vladva_training.processes.signals import EndedAtOnce

if TYPE_CHECKING:
    from vladva_training.run.loop import Run

DETAILS = "last_error.txt"


class Whole:
    """Whether parameters, optimizer, average and counters belong to the same step, and so can be saved."""

    def __init__(self) -> None:
        self._changing = False

    def __bool__(self) -> bool:
        return not self._changing

    @contextlib.contextmanager
    def interrupted(self) -> Iterator[None]:
        """Take a step within this block: an error in the middle of it leaves a state that can't be saved."""
        self._changing = True
        yield
        self._changing = False  # not in a finally: after an error the step is incomplete


@contextlib.contextmanager
def saved_first(run: "Run") -> Iterator[None]:
    """Take a run's steps within this block. Any error saves the state, without waiting for other processes.

    Raises:
        RunError: instead of any other error, with what happened and how to continue. KeyboardInterrupt and SystemExit
            are re-raised; a second Ctrl-C is, without saving.
    """
    try:
        yield
    except (EndedAtOnce, DiskError):
        raise
    except RunError as error:
        if not (error.agreed or run.processes.is_main):
            raise
        raise RunError(f"{str(error).rstrip('.')}. {_save(run, error.agreed)}") from error
    except Exception as error:
        details = _write_details(run, error)
        traceback.clear_frames(error.__traceback__)  # they may hold the memory that saving needs
        raise RunError(f"{_process(run)}{in_one_line(error)}. {_save(run)}{details}") from error
    except BaseException:
        run.progress.say(_save(run))
        raise


@contextlib.contextmanager
def before_the_first_step(world_size: int) -> Iterator[None]:
    """Build a run within this block: a full disk, too little memory and lost processes become a RunError.

    Raises:
        RunError: instead of the errors above.
        ValueError: instead of any other OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in disk.FULL:
            raise RunError(f"{error}; free some space, then start again") from error
        raise ValueError(in_one_line(error)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise RunError(in_one_line(error)) from error
    except RuntimeError as error:
        if world_size == 1 or isinstance(error, RunError):
            raise
        raise RunError(f"{in_one_line(error)} (another process may have ended; its own message says why)") from error


def _save(run: "Run", together: bool = False) -> str:
    """Save the state, alone or together with the other processes; return where it is, or why it wasn't saved."""
    if not run.whole:
        return f"The step was incomplete, so its state is not saved; {run.store.last_good()}"
    if run.sharded and not together:
        return f"No process has all weights, so the state of this step is not saved; {run.store.last_good()}"
    if not (together or run.processes.is_main):
        return "Process 0 saves the state"
    try:
        run.save() if together else run.write_checkpoint()
    except Exception as error:  # the first error matters more; a GPU that failed once fails again
        return f"The state can't be saved ({in_one_line(error)}); {run.store.last_good()}"
    return f"The state is in {run.store.path(run.trainer.state.step)}; resume=true continues from there"


def _process(run: "Run") -> str:
    return f"process {run.processes.rank}: " if run.processes.world_size > 1 else ""


def _write_details(run: "Run", error: Exception) -> str:
    """Write the traceback to a file, for debugging; return a note that says where."""
    rank = run.processes.rank
    path = Path(run.recipe.output_dir) / (DETAILS if rank == 0 else f"last_error-rank{rank}.txt")
    try:
        path.write_text(without_addresses("".join(traceback.format_exception(error))), encoding="utf-8")
    except OSError:
        return ""
    return f" (the traceback is in {path})"
