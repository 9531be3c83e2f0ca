"""A run's output while it trains: a progress bar, metrics.jsonl, TensorBoard, wandb.

An event is "train" (a step), "evaluation" or "non_finite" (a step that was not taken). Every writer gets every event;
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
RATE_STEPS = 20  # steps over which the rates are averaged


class Writer(Protocol):
    """A destination of events."""

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Progress:
    """Passes events on: each step to the bar, every `log_every`th and the last one to the writers.

    Args:
        bar: shows each step; None in processes other than the first.
        writers: store the logged events.
        log_every, total_steps: decide which steps are logged.
    """

    def __init__(self, bar: Bar | None, writers: list[Writer], log_every: int, total_steps: int) -> None:
        self._bars, self._writers = [bar] if bar else [], writers
        self._log_every, self._total_steps = log_every, total_steps

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Show a training step, and log it if it is due."""
        for bar in self._bars:
            bar.show(step, values)
        if step % self._log_every == 0 or step == self._total_steps:
            self.log("train", step, values)

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Pass an event to all writers."""
        for writer in self._writers:
            writer.write(event, step, values)

    def say(self, text: str) -> None:
        """Print a line above the bar, to stderr."""
        for bar in self._bars:
            bar.say(text)

    def close(self) -> None:
        """Close the bar and all writers; errors are printed, since they must not hide the reason why the run ended."""
        for part in [*self._bars, *self._writers]:
            try:
                part.close()
            except Exception as error:  # such as wandb's own
                self.say(f"{type(part).__name__} could not be closed: {in_one_line(error)}")


def open_progress(recipe: Recipe, total_steps: int, state: RunState, is_main: bool) -> Progress:
    """Open the bar and the writers in the first process, starting at the state's step; nothing in the others."""
    if not is_main:
        return Progress(None, [], recipe.run.log_every, total_steps)
    lines = JsonLines(Path(recipe.output_dir) / METRICS, state)
    bar = Bar(recipe.name, total_steps, state.step)
    return Progress(bar, [lines, *open_trackers(recipe, state, bar.say)], recipe.run.log_every, total_steps)


class Meter:
    """Rates over the last steps, and memory.

    Args:
        device: the device whose memory is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: deque[tuple[float, int, int]] = deque(maxlen=RATE_STEPS)

    def rates(self, seconds: float, pairs: int, tokens: int) -> dict[str, float]:
        """Add a step and return `samples_per_s`, `tokens_per_s` and `memory_gb` (10^9 bytes)."""
        self._steps.append((seconds, pairs, tokens))
        duration, pairs, tokens = (sum(column) for column in zip(*self._steps, strict=True))
        return {"samples_per_s": pairs / duration, "tokens_per_s": tokens / duration, "memory_gb": self._memory()}

    def _memory(self) -> float:
        """Peak memory of this process in GB: of the GPU, or without one the resident set; NaN on Windows."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e9
        try:
            import resource
        except ImportError:
            return math.nan
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class JsonLines:
    """metrics.jsonl: one object per event, with `event`, `step` and the values; NaN and infinity become null.

    Args:
        path: the file. On resume, lines after the checkpoint are removed, so that no step appears twice.
        state: the checkpoint's state.
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
            RunError: the file can't be written, such as on a full disk.
        """
        numbers = {name: _json_value(value) for name, value in values.items()}
        with guarding(self.path):
            self._file.write(json.dumps({"event": event, "step": step, **numbers}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; errors are printed."""
        with reporting(self.path):
            self._file.close()


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cut(path: Path, state: RunState) -> None:
    """Keep the lines up to the state; also remove a last line that a kill truncated."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole.write(path, "".join(line for line in lines if _is_past(line, state)).encode())


def _is_past(line: str, state: RunState) -> bool:
    try:
        found = json_files.parse(line, json_files.RECORDS)
        return found["step"] <= (state.evaluated if found["event"] == "evaluation" else state.step)
    except (ValueError, LookupError, TypeError):  # truncated by a kill, or not ours
        return False
