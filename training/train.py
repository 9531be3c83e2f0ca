"""A run, from its recipe to its adapter. Reads from top to bottom."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import torch

from vladva_clip.interface import devices, precision_words
from vladva_training.config import Recipe
from vladva_training.data.loader import Loader
from vladva_training.processes.distributed import Processes
from vladva_training.processes.sharding import shard
from vladva_training.processes.signals import StopSignals
from vladva_training.run import preflight
from vladva_training.run import state as states
from vladva_training.run.checkpoints import CheckpointStore
from vladva_training.run.idle import idle_losses
from vladva_training.run.loop import Run
from vladva_training.run.measuring import Measuring
from vladva_training.run.output_lock import alone
from vladva_training.run.progress import open_progress
from vladva_training.run.rescue import before_the_first_step
from vladva_training.run.setting import Setting, compare, measures_otherwise
from vladva_training.run.state import Trainer
from vladva_training.run.versions import compare_versions
from vladva_training.step.fused import FusedForward
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.kernels import check_kernels
from vladva_training.step.optim import EMA, build_optimizer, build_schedule
from vladva_training.step.trainable import load_trainable


def train(recipe: Recipe, device: str | None = None) -> int:
    """Train, evaluate and write `adapter/`, `checkpoints/` and `metrics.jsonl` into `recipe.output_dir`.

    Full fine-tuning writes `lvlm/` too, the adapter's base.

    Args:
        recipe: everything that determines the result.
        device: where (see `vladva_clip.interface.devices`); None for CUDA if there is one, else the CPU.

    Returns:
        The exit status: 0, or `run.sigterm_exit_code` after a SIGTERM and 130 after a SIGINT, with the state saved.

    Raises:
        ValueError: settings, sources, a device or a checkpoint that don't fit; says what to do.
        RunError: a loss that is not finite, a worker that died, a full disk, or anything else that ends a run; the
            state is saved if possible.
    """
    place = None if device is None else _place(device)
    check_kernels(recipe, place)
    with StopSignals(recipe.run.sigterm_exit_code) as stop:
        processes = Processes.start(device=place)
        with alone(Path(recipe.output_dir), processes):
            with before_the_first_step(processes.world_size):
                run = prepare(recipe, processes)
            with stop.deferred(), contextlib.closing(run.progress):
                status = run.go(stop)
        processes.end()
    return status


def _place(device: str) -> torch.device:
    place = devices.resolve(device)
    if place.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"--device {device} names one device for all of torchrun's processes: use {place.type}, or leave it out"
        )
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)
    return place


def prepare(recipe: Recipe, processes: Processes) -> Run:
    """Build everything that a run needs, at the state where it stopped or at step 0."""
    ready = preflight.look(recipe, processes)  # checks everything except the weights before loading them
    loader = ready.loader

    torch.manual_seed(recipe.seed)
    spread = recipe.model.train == "full" and processes.world_size > 1
    model, _ = load_trainable(recipe.model, "cpu" if spread else processes.device)  # one GPU may not hold it
    fused = FusedForward(model, recipe.loss, recipe.batch)
    from_main = processes.from_main if spread else None
    measuring = Measuring.of(recipe, model, loader, ready.evaluation, ready.preprocess, from_main)

    total_steps = recipe.run.steps or loader.steps(recipe.run.epochs)
    layers = model.visual.backbone.trunk_module.layers
    wrapped = shard(fused, layers, processes.device) if spread else processes.wrap(fused)  # all take rank 0's weights
    gradients = GlobalStep(wrapped, recipe)
    optimizer = build_optimizer(fused, recipe.optim)
    schedule = build_schedule(optimizer, recipe.optim, total_steps)
    ema = EMA(fused, recipe.optim.ema_decay) if recipe.optim.ema_decay else None
    trainer = Trainer(fused, optimizer, schedule, ema)

    lengths = tuple(map(len, loader.dataset.sources))
    config = model.config
    of_model = config.base.fingerprint, config.prompt, config.encoding, config.image
    setting = Setting(recipe, processes.world_size, lengths, *of_model)
    notes = [
        *_warnings(recipe, loader, total_steps),
        *measuring.notes,
        *_resume(recipe, ready.store, ready.newest, trainer, setting),
    ]
    if processes.is_main:
        notes += ready.fit.warnings(loader.dataset.sources, loader.splitter, processes.world_size)
    loader.next_batch = trainer.state.step
    progress = open_progress(recipe, total_steps, trainer.state, processes.is_main)
    for note in notes:
        progress.say(note)
    return Run(recipe, processes, ready.store, setting, trainer, gradients, loader, measuring, progress, total_steps)


def _warnings(recipe: Recipe, loader: Loader, total_steps: int) -> list[str]:
    """Warn of settings that are valid but perhaps not intended."""
    found, size = [f"warning: {loader.prefetch.note}"] if loader.prefetch.note else [], recipe.batch.size
    beyond = total_steps * size - recipe.run.epochs * loader.epoch_size
    if recipe.run.steps is None and beyond:
        found.append(
            f"warning: batch.size {size} does not divide the {loader.epoch_size} records of {recipe.run.epochs} "
            f"epochs: the last batch is filled up with {beyond} records of the next"
        )
    cut = sorted({group for group in loader.order.group_sizes if size % group})
    if cut:
        found.append(f"warning: batch.size {size} splits groups of {cut} records that belong in one batch")
    micro_size, share = recipe.batch.micro_size, loader.slice.batch_size
    if micro_size and micro_size > share:
        found.append(
            f"warning: batch.micro_size {micro_size} is more than a process's {share} images: the batch is computed at "
            "once, without GradCache"
        )
    return [*found, *idle_losses(recipe, loader)]


def _resume(recipe: Recipe, store: CheckpointStore, step: int | None, trainer: Trainer, setting: Setting) -> list[str]:
    """Restore the trainer from its newest checkpoint; return what to tell the user about it."""
    if step is None:
        return ["resume=true, but there is no checkpoint yet: starting at step 0"] if recipe.resume else []
    data = states.read_record(store.path(step))
    differing = compare(precision_words.in_words(data["setting"]), setting)
    differing += compare_versions(data["versions"])
    states.restore(trainer, store.path(step), data)
    if measures_otherwise(data["setting"], setting):
        trainer.state = replace(trainer.state, best=None)
    return [f"continuing from {store.path(step)}", *(f"warning: {note}" for note in differing)]
