"""The output directory of a run, created and checked before its model is loaded."""

from pathlib import Path

from vladva_clip.storage import places, whole
from vladva_training.config import Recipe
from vladva_training.processes.distributed import Processes
from vladva_training.processes.faults import Faults
from vladva_training.run.checkpoints import CheckpointStore
from vladva_training.run.product import ADAPTER


def open_store(recipe: Recipe, processes: Processes, faults: Faults) -> tuple[CheckpointStore, int | None]:
    """Open a run's directory; return its checkpoints and the step of the newest one, None if there is none.

    Added to `faults`: a directory that can't be written, holds another run, or isn't shared by all processes.
    """
    store = CheckpointStore(recipe.output_dir, recipe.run.keep_last)
    with faults.noted():
        if processes.is_main:
            _make_directory(store)
    processes.wait()
    newest = max(store.steps(), default=-1)
    largest = processes.largest(newest)
    with faults.noted():
        if largest != newest:
            raise ValueError(
                f"process {processes.rank} does not see the checkpoints in {store.directory} that other processes see; "
                "expected an output_dir on a file system that all machines share"
            )
        _refuse_other_run(recipe, store, newest)
    return store, None if newest < 0 else newest


def check_place(recipe: Recipe) -> int | None:
    """Check a run's directory without changing it; return the step of its newest checkpoint, None if there is none.

    Raises:
        ValueError: it can't be written, or holds another run.
    """
    store = CheckpointStore(recipe.output_dir, recipe.run.keep_last)
    places.check_folder(recipe.output_dir, "output_dir")
    newest = max(store.steps(), default=-1)
    _refuse_other_run(recipe, store, newest)
    return None if newest < 0 else newest


def _refuse_other_run(recipe: Recipe, store: CheckpointStore, newest: int) -> None:
    finished = Path(recipe.output_dir) / ADAPTER
    if newest >= 0 and not recipe.resume:
        raise ValueError(
            f"{store.directory} holds checkpoints of a run, the newest of step {newest}; continue it with resume=true, "
            "or give another output_dir"
        )
    if newest < 0 and finished.exists():
        raise ValueError(
            f"{finished} exists, but there is no checkpoint to continue its run from; give another output_dir"
        )


def _make_directory(store: CheckpointStore) -> None:
    try:
        store.directory.mkdir(parents=True, exist_ok=True)
        store.clean()
        whole.clean(store.directory.parent)
        for path in store.directory.parent.glob("bad_records*.jsonl") if not store.steps() else ():
            path.unlink()  # left by a run that never reached its first checkpoint
    except OSError as error:
        raise ValueError(f"output_dir {store.directory.parent} can't be written ({error}); give another one") from error
