"""TensorBoard and Weights & Biases: beside metrics.jsonl, which has everything, so a run goes on without them."""

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
    """Open TensorBoard where it is installed, and wandb where `WANDB_PROJECT` is set.

    Args:
        recipe: whose run is logged, into its output_dir.
        state: where the run starts.
        say: takes one line for each that is wanted and can't be had; the run goes on without it.
    """
    found = [_started("tensorboard", lambda: _tensorboard(recipe, state), "repair or uninstall it", say)]
    if os.environ.get(PROJECT) and os.environ.get(MODE) != "disabled":
        mend = f"log in (wandb login), set {MODE}=offline, or unset {PROJECT}"
        found.append(_started("wandb", lambda: _wandb(recipe, say), mend, say))
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
        """Add a scalar per number.

        Raises:
            RunError: the disk is full or fails.
        """
        with guarding(self.directory):
            for name, value in _numbers(values).items():
                self._writer.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        """Write what is left; what can't be written is said."""
        with reporting(self.directory):
            self._writer.close()
        threading.excepthook = self._hook

    def _leave_disk_errors(self, failed: threading.ExceptHookArgs) -> None:
        """Print no traceback of TensorBoard's own thread where the next `write` or `close` says the same."""
        ours = type(failed.thread).__module__.startswith("tensorboard.")
        if not (ours and issubclass(failed.exc_type, OSError)):
            self._hook(failed)


class WandB:
    """A Weights & Biases run, gone on with after a resume.

    Args:
        wandb: the module.
        recipe: names the run, and is its config.
        say: is told, once, when wandb stops taking figures.
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
        except Exception as error:  # wandb's own, or its network's
            self._lost = True
            self._say(f"warning: wandb takes no more figures ({in_one_line(error)}); they stand in metrics.jsonl")

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def _started(name: str, start: Callable, mend: str, say: Say) -> Any:
    """What `start` returns; None, and a line said, where it can't be had."""
    try:
        return start()
    except Exception as error:  # a package that doesn't fit its neighbors, the disk, wandb's own, its network's
        say(f"warning: {name} can't start ({in_one_line(error)}); the run goes on without it: {mend}")
        return None


def _tensorboard(recipe: Recipe, state: RunState) -> TensorBoard | None:
    module = _module("tensorboard")
    return module and TensorBoard(Path(recipe.output_dir) / "tensorboard", state)


def _wandb(recipe: Recipe, say: Say) -> WandB | None:
    module = _module("wandb")
    if module is None:
        say(
            f"warning: {PROJECT} is set, but wandb is not installed: nothing is logged there. "
            f"pip install wandb, or unset {PROJECT}"
        )
    return module and WandB(module, recipe, say)


def _module(name: str) -> ModuleType | None:
    """Import a package; None where it isn't installed, whatever folder of its name (of logs) lies on the way."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is there, and lacks another
            raise
        return None
    is_folder = getattr(module, "__file__", None) is None and hasattr(module, "__path__")
    return None if is_folder else module


def _run_id(recipe: Recipe) -> str:
    """The id of the run at wandb, which a resumed run goes on with."""
    path = Path(recipe.output_dir) / "wandb_id"
    if not (recipe.resume and path.exists()):
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}
