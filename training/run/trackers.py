"""TensorBoard and Weights & Biases. metrics.jsonl has everything too, so a run continues without them."""

import importlib
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from vladva_training.config import Recipe, flat
from vladva_training.processes.disk_errors import guarding, reporting
from vladva_training.processes.one_line import in_one_line
from vladva_training.run.state import RunState

PROJECT, MODE = "WANDB_PROJECT", "WANDB_MODE"
Say = Callable[[str], None]


def open_trackers(recipe: Recipe, state: RunState, say: Say) -> list["TensorBoard | WandB"]:
    """Open TensorBoard if it is installed, and wandb if `WANDB_PROJECT` is set.

    Args:
        recipe: the recipe of the logged run; files go into its output_dir.
        state: the state at the start.
        say: prints one line for each tracker that was requested but can't start; the run continues without it.
    """
    found = [_started("tensorboard", lambda: _tensorboard(recipe, state), "repair or uninstall it", say)]
    if os.environ.get(PROJECT) and os.environ.get(MODE) != "disabled":
        fix = f"log in (wandb login), set {MODE}=offline, or unset {PROJECT}"
        found.append(_started("wandb", lambda: _wandb(recipe, say), fix, say))
    return [tracker for tracker in found if tracker is not None]


class TensorBoard:
    """Event files in OUTPUT_DIR/tensorboard."""

    def __init__(self, directory: Path, state: RunState) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.directory = directory
        self._hook = threading.excepthook
        self._writer = SummaryWriter(str(directory), purge_step=state.step + 1 if state.step else None)
        threading.excepthook = self._leave_disk_errors

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Add a scalar for each number.

        Raises:
            RunError: the files can't be written, such as on a full disk.
        """
        with guarding(self.directory):
            for name, value in _numbers(values).items():
                self._writer.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        """Write the rest; errors are printed."""
        with reporting(self.directory):
            self._writer.close()
        threading.excepthook = self._hook

    def _leave_disk_errors(self, failed: threading.ExceptHookArgs) -> None:
        """Don't print the traceback of a disk error in TensorBoard's thread: the next `write` or `close` reports it."""
        ours = type(failed.thread).__module__.startswith("tensorboard.")
        if not (ours and issubclass(failed.exc_type, OSError)):
            self._hook(failed)


class WandB:
    """A Weights & Biases run; a resumed training run continues the same one.

    Args:
        wandb: the module.
        recipe: gives the run its name and config.
        say: prints a line, once, if wandb stops accepting figures.
    """

    def __init__(self, wandb: ModuleType, recipe: Recipe, say: Say) -> None:
        self._say, self._lost = say, False
        options = {"id": _run_id(recipe), "resume": "allow", "name": recipe.name, "dir": recipe.output_dir}
        self._run = wandb.init(project=os.environ[PROJECT], config=flat(recipe), **options)

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Log an event's numbers."""
        if self._lost:
            return
        try:
            self._run.log({f"{event}/{name}": value for name, value in _numbers(values).items()}, step=step)
        except Exception as error:  # from wandb itself, or its network
            self._lost = True
            self._say(f"warning: wandb accepts no more figures ({in_one_line(error)}); metrics.jsonl has them")

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def _started(name: str, start: Callable, fix: str, say: Say) -> Any:
    """Return what `start` returns, or print a warning and return None if it fails."""
    try:
        return start()
    except Exception as error:  # incompatible packages, the disk, wandb itself, its network
        say(f"warning: {name} can't start ({in_one_line(error)}); the run continues without it: {fix}")
        return None


def _tensorboard(recipe: Recipe, state: RunState) -> TensorBoard | None:
    module = _module("tensorboard")
    return module and TensorBoard(Path(recipe.output_dir) / "tensorboard", state)


def _wandb(recipe: Recipe, say: Say) -> WandB | None:
    module = _module("wandb")
    if module is None:
        say(
            f"warning: {PROJECT} is set, but wandb is not installed, so nothing is logged there; "
            f"pip install wandb, or unset {PROJECT}"
        )
    return module and WandB(module, recipe, say)


def _module(name: str) -> ModuleType | None:
    """Import a package; return None if it isn't installed, even if there is a folder of its name (with logs, say)."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is installed, but lacks another package
            raise
        return None
    is_folder = getattr(module, "__file__", None) is None and hasattr(module, "__path__")
    return None if is_folder else module


def _run_id(recipe: Recipe) -> str:
    """The run's id at wandb; a resumed run keeps it."""
    path = Path(recipe.output_dir) / "wandb_id"
    if not (recipe.resume and path.exists()):
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}
