"""The course of a pre-training run: its length, learning rate, curve, checkpoints and end."""

import abc
import itertools
import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from vladva_clip.storage import whole
from vladva_training.processes.signals import StopSignals
from vladva_training.run.progress import METRICS, JsonLines
from vladva_training.run.state import RunState

CHECKPOINT, SETTINGS = "checkpoint.pt", "settings"


@dataclass(frozen=True)
class Course:
    """When a run ends, how fast it learns, and what it writes on the way.

    Attributes:
        steps: length of the run in optimizer steps, or None if `minutes` decides.
        minutes: length of the run in minutes of training, over all resumed parts.
        learning_rate: reached after `warmup_steps` and held until the last `decay_share` of the run, in which a
            cosine leads to a hundredth of it.
        log_every, save_every, validate_every: steps between progress lines, checkpoints and validations; 0 for never. A
            run that is validated is validated at its end too.
        patience: validations without a better loss after which the run ends; None for any number.
        workers: processes that prepare batches; 0 prepares them between the steps.
    """

    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.4
    log_every: int = 20
    save_every: int = 200
    validate_every: int = 200
    patience: int | None = None
    workers: int = 0

    def __post_init__(self):
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(f"found steps={self.steps}, minutes={self.minutes}; expected exactly one of the two")

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0 to 1."""
        return min(1.0, step / self.steps if self.steps else seconds / 60 / self.minutes)

    def learning_rate_at(self, step: int, seconds: float) -> float:
        """Linear warm-up, a plateau, then a cosine."""
        decayed = max(0.0, 1 - (1 - self.progress(step, seconds)) / self.decay_share)
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * decayed))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * cosine


class Trainer(abc.ABC):
    """What learns: the parts that a checkpoint holds, and the place in the run.

    Attributes:
        step, seconds: optimizer steps, and time spent in them, over all resumed parts.
        best, worse: the lowest validation loss, and how many validations since then were not better.
    """

    def __init__(self, course: Course) -> None:
        self.course = course
        self.step, self.seconds, self.best, self.worse = 0, 0.0, math.inf, 0

    @property
    @abc.abstractmethod
    def parts(self) -> Mapping[str, Any]:
        """Everything with a state, by name."""

    @property
    @abc.abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What must be the same in all parts of a run, as plain values; its course may change."""

    @property
    @abc.abstractmethod
    def data(self) -> Dataset:
        """What each step learns from: item `step` is a pure function of the step."""

    @abc.abstractmethod
    def learn(self, batch: Any) -> dict[str, float]:
        """Take one optimizer step; return its losses by name."""

    @abc.abstractmethod
    def validate(self) -> dict[str, float]:
        """Measure what was learned on scenes of the split "validation"; "loss" decides which is best."""

    @abc.abstractmethod
    def write(self, directory: Path) -> None:
        """Write what the run makes."""

    @property
    def done(self) -> bool:
        """Whether the run has reached its length, or has stopped improving."""
        patience = self.course.patience
        return self.course.progress(self.step, self.seconds) >= 1 or (patience is not None and self.worse >= patience)

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return self.course.learning_rate_at(self.step, self.seconds)

    def train_step(self, batch: Any) -> dict[str, float]:
        """`learn`, and count the step and its time."""
        started = time.perf_counter()
        losses = self.learn(batch)
        self.step, self.seconds = self.step + 1, self.seconds + time.perf_counter() - started
        return losses

    def judge(self, figures: Mapping[str, float]) -> None:
        """Remember whether a validation was the best."""
        self.worse = 0 if figures["loss"] < self.best else self.worse + 1
        self.best = min(self.best, figures["loss"])

    def save(self, directory: Path) -> None:
        """Write `checkpoint.pt`, whole or not at all."""
        counters = {"step": self.step, "seconds": self.seconds, "best": self.best, "worse": self.worse}
        state = {name: part.state_dict() for name, part in self.parts.items()} | {SETTINGS: dict(self.settings)}
        with whole.file(directory / CHECKPOINT) as new:
            torch.save({**state, **counters}, new)

    def resume(self, directory: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            ValueError: there is no checkpoint, or it is of a run with other settings.
        """
        path = directory / CHECKPOINT
        if not path.exists():
            raise ValueError(f"{path} does not exist, so there is nothing to resume; start without --resume")
        state = torch.load(path, weights_only=True)
        _check_settings(path, state.get(SETTINGS, {}), self.settings)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.step, self.seconds, self.best, self.worse = (state[name] for name in ("step", "seconds", "best", "worse"))


def _check_settings(path: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [f"{name}={value!r}, now {now.get(name)!r}" for name, value in stored.items() if now.get(name) != value]
    if changed:
        raise ValueError(f"{path} is of a run with {'; '.join(changed)}: resume it with its own settings")


def begin(trainer: Trainer, directory: Path, resume: bool) -> None:
    """Continue the run of a directory, or see that a new one would overwrite none.

    Raises:
        ValueError: as `Trainer.resume`; or there is a checkpoint and it is not to be resumed.
    """
    path = directory / CHECKPOINT
    if resume:
        trainer.resume(directory)
    elif path.exists():
        raise ValueError(f"{path} is the state of a run: continue it with --resume, or give another --output-dir")


def run(trainer: Trainer, directory: Path, log=print) -> None:
    """Train to the end; a signal saves after the current step and ends the program.

    Raises:
        SystemExit: a signal came; `Trainer.resume` continues from that step.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with StopSignals() as stop, stop.deferred():
        lines = JsonLines(directory / METRICS, RunState(step=trainer.step, evaluated=trainer.step))
        try:
            _run(trainer, directory, _Curve(trainer, lines, log), stop)
        finally:
            lines.close()
        trainer.save(directory)
        if stop.exit_code is not None:
            log(f"stopped by a signal; --resume continues from step {trainer.step}", flush=True)
            raise SystemExit(stop.exit_code)
    trainer.write(directory)


def _run(trainer: Trainer, directory: Path, curve: "_Curve", stop: StopSignals) -> None:
    course = trainer.course
    batches = load(trainer.data, trainer.step, course.workers)
    while not trainer.done and stop.exit_code is None:
        curve.add(trainer.train_step(next(batches)))
        if course.validate_every and (trainer.step % course.validate_every == 0 or trainer.done):
            curve.validated(trainer.validate())
        if course.save_every and trainer.step % course.save_every == 0:
            trainer.save(directory)


def load(data: Dataset, start: int, workers: int) -> Iterator[Any]:
    """The items of a data set from a step on, without end; each is a whole batch."""
    return iter(
        DataLoader(data, batch_size=None, sampler=itertools.count(start), num_workers=workers, worker_init_fn=_quiet)
    )


def _quiet(worker: int) -> None:
    """Leave Ctrl-C to the main process: torch reports a worker that it ends as an error, in the middle of the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Curve:
    """Prints progress lines and appends them to metrics.jsonl."""

    def __init__(self, trainer: Trainer, lines: JsonLines, log) -> None:
        self.trainer, self.lines, self.log = trainer, lines, log
        self._start()

    def _start(self) -> None:
        """Begin what the next line sums up."""
        self.losses, self.first, self.started = defaultdict(list), self.trainer.step, time.perf_counter()

    def add(self, losses: Mapping[str, float]) -> None:
        """Add a step's losses; print their means where a line is due."""
        for name, value in losses.items():
            self.losses[name].append(value)
        log_every = self.trainer.course.log_every
        if log_every and self.trainer.step % log_every == 0:
            self._report({name: sum(values) / len(values) for name, values in sorted(self.losses.items())})

    def validated(self, figures: Mapping[str, float]) -> None:
        """Print and append a validation's figures."""
        self.trainer.judge(figures)
        self.lines.write("evaluation", self.trainer.step, {"seconds": self.trainer.seconds, **figures})
        self.log(f"step {self.trainer.step} | validation | {_spelled(figures)}", flush=True)

    def _report(self, means: Mapping[str, float]) -> None:
        trainer = self.trainer
        pace = (time.perf_counter() - self.started) / (trainer.step - self.first)
        numbers = {"seconds": trainer.seconds, "seconds_per_step": pace, "learning_rate": trainer.learning_rate}
        self.lines.write("train", trainer.step, numbers | means)
        self.log(f"step {trainer.step} | {_spelled(means)} | {pace:.2f} s/step | {self._left()}", flush=True)
        self._start()

    def _left(self) -> str:
        progress = self.trainer.course.progress(self.trainer.step, self.trainer.seconds)
        return f"{self.trainer.seconds / progress * (1 - progress) / 60:.1f} min left"


def _spelled(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in figures.items())
