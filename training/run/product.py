"""Writes the result of a run: an adapter and, after full fine-tuning, the LVLM that it belongs to."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vladva_clip import VladvaCLIP
from vladva_clip.interface.quiet import LARGE, quiet_transformers
from vladva_clip.storage import foreign_files, whole
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import BaseConfig
from vladva_training.config import Recipe, flat
from vladva_training.processes.distributed import Processes
from vladva_training.processes.sharding import gathered, is_sharded
from vladva_training.run.state import RunState
from vladva_training.run.versions import versions
from vladva_training.step.fused import FusedForward
from vladva_training.step.optim import trainable
from vladva_training.step.trainable import load_trainable

ADAPTER, LVLM = "adapter", "lvlm"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")


def write_product(model: VladvaCLIP, output_dir: Path, full: bool) -> None:
    """Write `OUTPUT_DIR/adapter`; with `full`, first `OUTPUT_DIR/lvlm`, the trained LVLM and the adapter's base."""
    if not full:
        _write_adapter(model, output_dir / ADAPTER)
        return
    place = (output_dir / LVLM).absolute()
    with whole.folder(place) as directory:
        _write_lvlm(model, directory)
    with _over_base(model, place):
        _write_adapter(model, output_dir / ADAPTER)


@torch.no_grad()
def trained_model(module: FusedForward, recipe: Recipe, processes: Processes) -> VladvaCLIP | None:
    """Return the model that was trained; of a sharded one a copy on the CPU, in the first process alone.

    All processes must call this: a copy's base is loaded once more, and the trained weights are gathered one by one.

    Raises:
        RunError: the first process can't load the base.
    """
    if not is_sharded(module):
        return module.model
    copy = processes.on_main(lambda: FusedForward(load_trainable(recipe.model)[0], recipe.loss, recipe.batch))
    targets = {} if copy is None else trainable(copy)
    for name, parameter in trainable(module).items():
        found = gathered(parameter, keep=copy is not None)
        if copy is not None:
            targets[name].copy_(found)
    return None if copy is None else copy.model


def training_record(recipe: Recipe, state: RunState, processes: Processes, data: str) -> dict[str, Any]:
    """Return what training_record.json says of a run whose report on its data is `data`."""
    return {
        "recipe": flat(recipe),
        "state": asdict(state),
        "world_size": processes.world_size,
        "device": str(processes.device),
        "data_since_last_start": data,
        "versions": versions(),
    }


def _write_adapter(model: VladvaCLIP, place: Path) -> None:
    with whole.folder(place) as directory:
        model.save_pretrained(directory)
        for path in foreign_files.others(place):  # keep notes, results and a hand-written card
            _copy(path, directory / path.name)


def _copy(path: Path, copy: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, copy, symlinks=True)
    else:
        shutil.copy2(path, copy, follow_symlinks=False)


def _write_lvlm(model: VladvaCLIP, directory: Path) -> None:
    for path in model.base_directory.iterdir():  # tokenizer, image processor, chat template
        if path.is_file() and not path.name.endswith(WEIGHTS):
            shutil.copyfile(path, directory / path.name)
    lvlm = model.visual.backbone.lvlm
    size = sum(parameter.numel() * parameter.itemsize for parameter in lvlm.parameters())
    with quiet_transformers(size > LARGE):
        lvlm.save_pretrained(directory)


@contextlib.contextmanager
def _over_base(model: VladvaCLIP, place: Path) -> Iterator[None]:
    """Within this block the model counts as an adapter over the LVLM at `place`, whose weights are frozen."""
    trained = [parameter for parameter in model.visual.backbone.lvlm.parameters() if parameter.requires_grad]
    config, directory, lora, dtype = model.config, model.base_directory, model.base_lora, model.base_dtype
    base = BaseConfig(f"local-dir:{place}", config.base.family, None, BaseFiles(place).fingerprint)
    try:
        model.config = config.replace(base=base)
        model.base_directory, model.base_lora, model.base_dtype = place, None, model.visual.backbone.dtype
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        model.config, model.base_directory, model.base_lora, model.base_dtype = config, directory, lora, dtype
        for parameter in trained:
            parameter.requires_grad_(True)
