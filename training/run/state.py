"""What a checkpoint holds: all that a run needs to go on as if it had never stopped.

The step is the one counter: it says which batch is next, and the random generators start from it anew in every step, so
that neither is stored. The parameters are stored beside the adapter, which holds what is evaluated (their average with
EMA) and is there to be loaded by others.
"""

import json
import platform
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vladva_clip.scenes import stable_seed
from vladva_clip.storage import json_files
from vladva_training.config import Recipe, flat
from vladva_training.run.checkpoints import write_json
from vladva_training.step.optim import EMA, trainable

FORMAT_VERSION = 1
NOT_YET = -1
TENSORS, RECORD = "trainer.safetensors", "trainer.json"
PACKAGES = ("vladva-clip", "torch", "transformers", "peft", "safetensors")

FREE = {"name", "resume", "output_dir", "optim.on_non_finite"}
FREE |= {f"data.{key}" for key in ("num_workers", "worker_timeout", "max_bad_share")}
FREE |= {f"run.{key}" for key in ("checkpoint_every", "evaluate_every", "keep_last", "log_every", "sigterm_exit_code")}
"""Keys that may differ on resume: they do not decide what comes out."""
MEASURING = {"data.evaluation", "data.evaluation_count", "run.best_metric"}
"""Keys that may differ on resume, but then the best checkpoint is looked for anew."""
ROUNDING = {"batch.micro_size", "batch.visual_cache", "loss.ntp_chunk", "world_size"}
ROUNDING |= {"model.compile", "model.gradient_checkpointing"}
"""Keys that may differ on resume, with a result that is the same up to rounding."""
DRAWING = {"batch.micro_size", "world_size", "model.compile"}
"""Those of them that decide which dropout masks are drawn."""
BASE, LENGTHS = "fingerprint of the base", "records in data.train"


@dataclass(frozen=True)
class Best:
    """The best figure so far: of which metric, and at which step."""

    metric: str
    value: float
    step: int


@dataclass
class RunState:
    """The counters of a run.

    Attributes:
        step: optimizer steps taken, skipped ones included; also the number of the next global batch.
        skipped: steps whose loss or gradient was not finite.
        pairs, tokens: images, and tokens of the trunk, that were computed.
        seconds: spent in steps, over all starts of the run.
        evaluated: the last step that was evaluated, -1 for none yet.
        best: None before the first evaluation, or without `run.best_metric`.
    """

    step: int = 0
    skipped: int = 0
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    evaluated: int = NOT_YET
    best: Best | None = None


@dataclass(frozen=True)
class Setting:
    """What decides a run besides its state: compared on resume.

    Attributes:
        recipe: resolved.
        world_size: number of processes.
        source_lengths: records of each source.
        base: fingerprint of the LVLM's weights, None where it is not known.
    """

    recipe: Recipe
    world_size: int
    source_lengths: tuple[int, ...]
    base: str | None = None

    def values(self) -> dict[str, Any]:
        """Return all of it as JSON gives it back."""
        values = {**flat(self.recipe), "world_size": self.world_size, LENGTHS: self.source_lengths}
        values |= {BASE: self.base} if self.base else {}
        return json.loads(json.dumps(values))


@dataclass
class Trainer:
    """All that changes while training: parameters, optimizer, schedule, average and counters."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    ema: EMA | None = None
    state: RunState = field(default_factory=RunState)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that is stored as a tensor, on the CPU."""
        parameters = trainable(self.module)
        found = {f"parameter/{name}": parameter for name, parameter in parameters.items()}
        for name, parameter in parameters.items():
            moments = self.optimizer.state.get(parameter, {})
            found |= {f"optimizer/{name}/{kind}": moment for kind, moment in moments.items()}
        if self.ema is not None:
            found |= {f"ema/{name}": tensor for name, tensor in self.ema.state_dict().items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what `tensors` returned.

        Raises:
            ValueError: tensors that are missing, unexpected or of another shape, gathered.
        """
        parameters = trainable(self.module)
        stored = _section(tensors, "parameter")
        _check_fit({name: parameter.shape for name, parameter in parameters.items()}, stored)
        for name, parameter in parameters.items():
            parameter.copy_(stored[name])
        self._load_moments(list(parameters), _section(tensors, "optimizer"))
        if self.ema is not None:
            self.ema.load_state_dict(_section(tensors, "ema"))

    def _load_moments(self, names: list[str], moments: Mapping[str, torch.Tensor]) -> None:
        fresh, parameters = self.optimizer.state_dict(), trainable(self.module)
        places = {parameter: place for place, parameter in enumerate(_in_order(self.optimizer))}
        stored: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in moments.items():
            name, _, kind = key.rpartition("/")
            stored.setdefault(places[parameters[name]], {})[kind] = tensor
        self.optimizer.load_state_dict({**fresh, "state": stored})

    def advance_schedule(self) -> None:
        """Go on to the next step's learning rates, whether or not this step was skipped."""
        with warnings.catch_warnings():
            # of a skipped first step
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step\\(\\)` before")
            self.schedule.step()

    def schedule_state(self) -> dict[str, Any]:
        """Return the schedule's state as JSON data."""
        state = self.schedule.state_dict()
        return {name: state[name] for name in ("last_epoch", "_step_count", "_last_lr")}

    def load_schedule(self, state: dict[str, Any]) -> None:
        """Take up a schedule's state, and its learning rates."""
        self.schedule.load_state_dict({**self.schedule.state_dict(), **state})
        for group, rate in zip(self.optimizer.param_groups, state["_last_lr"], strict=True):
            group["lr"] = rate


def record(trainer: Trainer, setting: Setting) -> dict[str, Any]:
    """Return what a checkpoint's `trainer.json` says."""
    return {
        "format_version": FORMAT_VERSION,
        "state": asdict(trainer.state),
        "schedule": trainer.schedule_state(),
        "setting": setting.values(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes a run."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def write_files(directory: Path, trainer: Trainer, setting: Setting) -> None:
    """Write a checkpoint's own files; the adapter's directory is the model's to write."""
    save_file(trainer.tensors(), directory / TENSORS)
    write_json(directory / RECORD, record(trainer, setting))


def read_record(directory: Path) -> dict[str, Any]:
    """Read a checkpoint's `trainer.json`.

    Raises:
        ValueError: it can't be read, or another version wrote it.
    """
    try:
        data = json_files.read(directory / RECORD, json_files.RECORDS)
    except ValueError as error:
        raise ValueError(unreadable(directory, RECORD, error)) from error
    found = data.get("format_version") if isinstance(data, dict) else None
    if found != FORMAT_VERSION:
        raise ValueError(f"{directory} is of the format version {found!r}, expected {FORMAT_VERSION}: start anew")
    return data


def restore(trainer: Trainer, directory: Path, data: dict[str, Any]) -> None:
    """Put a run back to where a checkpoint was written.

    Args:
        trainer: freshly built from the same recipe, changed in place.
        directory: the checkpoint.
        data: its record.

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


def compare(stored: dict[str, Any], setting: Setting) -> list[str]:
    """Compare a checkpoint's setting with the present one.

    Returns:
        One warning per key that differs and may.

    Raises:
        ValueError: keys that can't differ, all of them, with both values.
    """
    now = setting.values()
    differing = {key: (stored.get(key), now.get(key)) for key in {**stored, **now} if stored.get(key) != now.get(key)}
    lines = {key: f"{key}: {then!r} in the checkpoint, {here!r} now" for key, (then, here) in differing.items()}
    if not (stored.get(BASE) and now.get(BASE)):
        lines.pop(BASE, None)  # older checkpoints know of none
    elif BASE in lines:
        lines[BASE] += (
            f" ({setting.recipe.model.name} holds other weights than then: get the old ones or revision back)"
        )
    refused = [line for key, line in lines.items() if key not in FREE | MEASURING | ROUNDING]
    if refused:
        raise ValueError(
            "resume=true, but the run in output_dir was started with other settings, which decide what comes out: "
            + "; ".join(refused)
            + ". Give the old values, or start anew in another output_dir"
        )
    notes = {key: "the result is the same up to rounding only" for key in ROUNDING}
    dropout = setting.recipe.model.lora_dropout
    if dropout and setting.recipe.model.train in ("lora", "qlora"):
        notes |= {
            key: f"other dropout masks are drawn (model.lora_dropout {dropout}): another result" for key in DRAWING
        }
    notes |= {key: "the best checkpoint is looked for anew" for key in MEASURING}
    return [f"{lines[key]}; {notes[key]}" for key in lines if key in notes]


def compare_versions(stored: dict[str, str]) -> list[str]:
    """Return one warning per package whose version is not the checkpoint's."""
    return [
        f"{name} {stored.get(name)} in the checkpoint, {now} now; the result is the same up to rounding only"
        for name, now in versions().items()
        if stored.get(name) != now
    ]


def measures_otherwise(stored: dict[str, Any], setting: Setting) -> bool:
    """Whether the figures of a checkpoint can't be compared with those to come."""
    now = setting.values()
    return any(stored.get(key) != now.get(key) for key in MEASURING)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Start torch's generators anew: what a step draws is a function of these three, wherever the run was resumed."""
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
        raise ValueError(f"its parameters are not those that train: {'; '.join(lines)}")


def unreadable(directory: Path, name: str, error: Exception) -> str:
    """Return what to say of a checkpoint's file that can't be read, and what to do."""
    earlier = sorted(path.name for path in directory.parent.glob("step-*") if path.name < directory.name)
    way_out = f"remove {directory} to go on from {earlier[-1]}" if earlier else "start anew in another output_dir"
    return f"{directory / name} can't be read ({error}); {way_out}"
