"""What a run says while it trains: a progress bar, metrics.jsonl, TensorBoard, wandb.

An event is "train" (a step), "evaluation" or "non_finite" (a step that was not taken). Every writer takes every event;
processes other than the first have no writers.
"""

import json
import math
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from vladva_clip.storage import json_files, whole
from vladva_training.config import Recipe
from vladva_training.processes.disk_errors import guarding, reporting
from vladva_training.processes.one_line import in_one_line
from vladva_training.run.bar import Bar
from vladva_training.run.state import RunState
from vladva_training.run.trackers import open_trackers

METRICS = "metrics.jsonl"
RATE_STEPS = 20  # steps over which the rates are taken


class Writer(Protocol):
    """One place that events go to."""

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Progress:
    """Passes events on: each step to the bar, every `log_every`th and the last to the writers.

    Args:
        bar: shows each step; None on processes other than the first.
        writers: keep what is logged.
        log_every, total_steps: when a step is logged.
    """

    def __init__(self, bar: Bar | None, writers: list[Writer], log_every: int, total_steps: int) -> None:
        self._bars, self._writers = [bar] if bar else [], writers
        self._log_every, self._total_steps = log_every, total_steps

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Show a training step, and log it when it is due."""
        for bar in self._bars:
            bar.show(step, values)
        if step % self._log_every == 0 or step == self._total_steps:
            self.log("train", step, values)

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Give an event to all writers."""
        for writer in self._writers:
            writer.write(event, step, values)

    def say(self, text: str) -> None:
        """Print a line above the bar, to stderr."""
        for bar in self._bars:
            bar.say(text)

    def close(self) -> None:
        """End the bar and all writers; what one can't do must not hide what ended the run."""
        for part in [*self._bars, *self._writers]:
            try:
                part.close()
            except Exception as error:  # of wandb's, for one
                self.say(f"{type(part).__name__} did not end well: {in_one_line(error)}")


def open_progress(recipe: Recipe, total_steps: int, state: RunState, is_main: bool) -> Progress:
    """Open what the first process writes to, from the state's step on; nothing for the others."""
    if not is_main:
        return Progress(None, [], recipe.run.log_every, total_steps)
    lines = JsonLines(Path(recipe.output_dir) / METRICS, state)
    bar = Bar(recipe.name, total_steps, state.step)
    return Progress(bar, [lines, *open_trackers(recipe, state, bar.say)], recipe.run.log_every, total_steps)


class Meter:
    """Rates over the last steps, and memory.

    Args:
        device: whose memory is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: deque[tuple[float, int, int]] = deque(maxlen=RATE_STEPS)

    def rates(self, seconds: float, pairs: int, tokens: int) -> dict[str, float]:
        """Take in one step and return `samples_per_s`, `tokens_per_s` and `memory_gb`."""
        self._steps.append((seconds, pairs, tokens))
        duration, pairs, tokens = (sum(column) for column in zip(*self._steps, strict=True))
        return {"samples_per_s": pairs / duration, "tokens_per_s": tokens / duration, "memory_gb": self._memory()}

    def _memory(self) -> float:
        """Peak memory of this process in GB: the GPU's, or without one the resident set; not a number on Windows."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e9
        try:
            import resource
        except ImportError:
            return math.nan
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class JsonLines:
    """metrics.jsonl: one object per event, with `event`, `step` and the values; not a number is null.

    Args:
        path: what a resumed run wrote into it behind its checkpoint is cut, so that no step stands there twice.
        state: of the checkpoint.
    """

    def __init__(self, path: Path, state: RunState) -> None:
        self.path = path
        with guarding(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut(path, state)
            self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            RunError: the disk is full or fails.
        """
        numbers = {name: _json_value(value) for name, value in values.items()}
        with guarding(self.path):
            self._file.write(json.dumps({"event": event, "step": step, **numbers}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; what it could not take has been reported."""
        with reporting(self.path):
            self._file.close()


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cut(path: Path, state: RunState) -> None:
    """Keep the lines up to the state; a line that a kill cut short goes too."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole.write(path, "".join(line for line in lines if _is_past(line, state)).encode())


def _is_past(line: str, state: RunState) -> bool:
    try:
        found = json_files.parse(line, json_files.RECORDS)
        return found["step"] <= (state.evaluated if found["event"] == "evaluation" else state.step)
    except (ValueError, LookupError, TypeError):  # cut by a kill, or not ours
        return False
