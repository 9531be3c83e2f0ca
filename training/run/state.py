"""The contents of a checkpoint: everything a run needs to continue as if it had never stopped.

The step is the only counter: it determines the next batch, and the random generators are seeded from it in every step,
so that neither is stored. The parameters are stored beside the adapter, which holds the evaluated values (with EMA
their average) and can be loaded on its own.
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vladva_clip.scenes import stable_seed
from vladva_clip.storage import json_files
from vladva_training.processes.sharding import gathered, like, put
from vladva_training.run.checkpoints import write_json
from vladva_training.run.setting import Setting
from vladva_training.run.versions import versions
from vladva_training.step.optim import EMA, trainable

FORMAT_VERSION = 1
NOT_YET = -1
TENSORS, RECORD = "trainer.safetensors", "trainer.json"


@dataclass(frozen=True)
class Best:
    """The best figure so far, with its metric and step."""

    metric: str
    value: float
    step: int


@dataclass
class RunState:
    """The counters of a run.

    Attributes:
        step: optimizer steps taken, including skipped ones; also the index of the next global batch.
        skipped: steps whose loss or gradient was not finite.
        pairs, tokens: number of images, and of tokens in the trunk, computed so far.
        seconds: time spent in steps, over all starts of the run.
        evaluated: the last step that was evaluated, -1 if none was.
        best: None before the first evaluation, or without `run.best_metric`.
    """

    step: int = 0
    skipped: int = 0
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    evaluated: int = NOT_YET
    best: Best | None = None


@dataclass
class Trainer:
    """Everything that changes while training: parameters, optimizer, schedule, average and counters."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    ema: EMA | None = None
    state: RunState = field(default_factory=RunState)

    def tensors(self, keep: bool = True) -> dict[str, torch.Tensor]:
        """Return all tensors of a checkpoint by name, contiguous and on the CPU.

        A sharded module's are gathered one after another: all processes must call this.

        Args:
            keep: False returns none of them, in a process that only contributes.
        """
        parameters = trainable(self.module)
        found = {f"parameter/{name}": parameter for name, parameter in parameters.items()}
        for name, parameter in parameters.items():
            moments = self.optimizer.state.get(parameter, {})
            found |= {f"optimizer/{name}/{kind}": moment for kind, moment in moments.items()}
        if self.ema is not None:
            found |= {f"ema/{name}": tensor for name, tensor in self.ema.state_dict().items()}
        tensors = {name: gathered(tensor, keep) for name, tensor in found.items()}
        return tensors if keep else {}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the tensors that `tensors` returned.

        Raises:
            ValueError: tensors that are missing, unexpected or of another shape; one error for all of them.
        """
        parameters = trainable(self.module)
        stored = _section(tensors, "parameter")
        _check_fit({name: parameter.shape for name, parameter in parameters.items()}, stored)
        for name, parameter in parameters.items():
            put(stored[name], parameter)
        self._load_moments(list(parameters), _section(tensors, "optimizer"))
        if self.ema is not None:
            self.ema.load_state_dict(_section(tensors, "ema"))

    def _load_moments(self, names: list[str], moments: Mapping[str, torch.Tensor]) -> None:
        fresh, parameters = self.optimizer.state_dict(), trainable(self.module)
        places = {parameter: place for place, parameter in enumerate(_in_order(self.optimizer))}
        stored: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in moments.items():
            name, _, kind = key.rpartition("/")
            own = like(tensor, parameters[name]) if tensor.ndim else tensor  # the step count is one number
            stored.setdefault(places[parameters[name]], {})[kind] = own
        self.optimizer.load_state_dict({**fresh, "state": stored})

    def advance_schedule(self) -> None:
        """Advance to the next step's learning rates, whether or not this step was skipped."""
        with warnings.catch_warnings():
            # raised if the first step was skipped
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step\\(\\)` before")
            self.schedule.step()

    def schedule_state(self) -> dict[str, Any]:
        """Return the schedule's state as JSON data."""
        state = self.schedule.state_dict()
        return {name: state[name] for name in ("last_epoch", "_step_count", "_last_lr")}

    def load_schedule(self, state: dict[str, Any]) -> None:
        """Restore a schedule's state, and its learning rates."""
        self.schedule.load_state_dict({**self.schedule.state_dict(), **state})
        for group, rate in zip(self.optimizer.param_groups, state["_last_lr"], strict=True):
            group["lr"] = rate


def record(trainer: Trainer, setting: Setting) -> dict[str, Any]:
    """Return the contents of a checkpoint's `trainer.json`."""
    return {
        "format_version": FORMAT_VERSION,
        "state": asdict(trainer.state),
        "schedule": trainer.schedule_state(),
        "setting": setting.values(),
        "versions": versions(),
    }


def write_files(directory: Path, trainer: Trainer, setting: Setting, tensors: Mapping | None = None) -> None:
    """Write a checkpoint's own files; the model writes the adapter's directory.

    Args:
        directory: of the checkpoint.
        trainer: its state.
        setting: of the run.
        tensors: `trainer.tensors()`, which a sharded trainer's processes have gathered together; None to take them now.
    """
    save_file(trainer.tensors() if tensors is None else dict(tensors), directory / TENSORS)
    write_json(directory / RECORD, record(trainer, setting))


def read_record(directory: Path) -> dict[str, Any]:
    """Read a checkpoint's `trainer.json`.

    Raises:
        ValueError: it can't be read, or has another format version.
    """
    try:
        data = json_files.read(directory / RECORD, json_files.RECORDS)
    except ValueError as error:
        raise ValueError(unreadable(directory, RECORD, error)) from error
    found = data.get("format_version") if isinstance(data, dict) else None
    if found != FORMAT_VERSION:
        raise ValueError(f"{directory} has format version {found!r}, expected {FORMAT_VERSION}: use another output_dir")
    return data


def restore(trainer: Trainer, directory: Path, data: dict[str, Any]) -> None:
    """Restore a run's state from a checkpoint.

    Args:
        trainer: freshly built from the same recipe, changed in place.
        directory: the checkpoint.
        data: its record, from `read_record`.

    Raises:
        ValueError: a file that can't be read, or tensors that do not fit.
    """
    try:
        trainer.load_tensors(load_file(directory / TENSORS))
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(unreadable(directory, TENSORS, error)) from error
    trainer.load_schedule(data["schedule"])
    state = RunState(**data["state"])
    trainer.state = replace(state, best=Best(**state.best) if state.best else None)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators: random draws in a step depend only on these three, wherever the run was resumed."""
    torch.manual_seed(stable_seed("step", seed, step, rank))


def _section(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(name + "/"): tensor for key, tensor in tensors.items() if key.startswith(name + "/")}


def _in_order(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _check_fit(expected: Mapping[str, torch.Size], found: Mapping[str, torch.Tensor]) -> None:
    faults = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "of another shape": [name for name in expected if name in found and expected[name] != found[name].shape],
    }
    if any(faults.values()):
        lines = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in faults.items() if names]
        raise ValueError(f"its parameters differ from the trained ones: {'; '.join(lines)}")


def unreadable(directory: Path, name: str, error: Exception) -> str:
    """Return the message for an unreadable file of a checkpoint, with what to do."""
    earlier = sorted(path.name for path in directory.parent.glob("step-*") if path.name < directory.name)
    way_out = f"remove {directory} to continue from {earlier[-1]}" if earlier else "start over in another output_dir"
    return f"{directory / name} can't be read ({error}); {way_out}"
