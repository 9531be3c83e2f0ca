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
from vladva_training.run.state import Setting, Trainer
from vladva_training.step.fused import FusedForward
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.kernels import check_kernels
from vladva_training.step.optim import EMA, build_optimizer, build_schedule
from vladva_training.step.trainable import load_trainable


def train(recipe: Recipe, device: str | None = None) -> int:
    """Train, evaluate and write `adapter/`, `checkpoints/` and `metrics.jsonl` into `recipe.output_dir`.

    Full fine-tuning writes `lvlm/` too, the adapter's base.

    Args:
        recipe: all that decides what is learned.
        device: where (see `vladva_clip.interface.devices`); CUDA where there is one, else the CPU, for None.

    Returns:
        The exit status: 0, or after a SIGTERM or SIGINT, with the state saved, `run.sigterm_exit_code` or 130.

    Raises:
        ValueError: settings, sources, a device or a checkpoint that don't fit, and what to do.
        RunError: a loss that is not finite, a worker that died, a full disk, and whatever else ends a run; the state is
            saved where it can be.
    """
    place = None if device is None else _place(device)
    check_kernels(recipe, place)
    with StopSignals(recipe.run.sigterm_exit_code) as stop:
        processes = Processes.start(find_unused_parameters=recipe.model.train == "full", device=place)
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
            f"--device {device} is one device for all of torchrun's processes: say {place.type}, or nothing"
        )
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)
    return place


def prepare(recipe: Recipe, processes: Processes) -> Run:
    """Build everything that a run needs and put it where it was left, or at step 0."""
    ready = preflight.look(recipe, processes)  # all that can be wrong but the weights, before they are loaded
    loader = ready.loader

    torch.manual_seed(recipe.seed)
    model, _ = load_trainable(recipe.model, processes.device)
    fused = FusedForward(model, recipe.loss, recipe.batch)
    measuring = Measuring.of(recipe, model, loader, ready.evaluation, ready.preprocess)

    total_steps = recipe.run.steps or loader.steps(recipe.run.epochs)
    optimizer = build_optimizer(fused, recipe.optim)
    schedule = build_schedule(optimizer, recipe.optim, total_steps)
    gradients = GlobalStep(processes.wrap(fused), recipe)  # before the average, whose start is rank 0's weights
    ema = EMA(fused, recipe.optim.ema_decay) if recipe.optim.ema_decay else None
    trainer = Trainer(fused, optimizer, schedule, ema)

    lengths = tuple(map(len, loader.dataset.sources))
    setting = Setting(recipe, processes.world_size, lengths, model.config.base.fingerprint)
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
    """What of a recipe is legal and perhaps not meant."""
    found, size = [f"warning: {loader.prefetch.note}"] if loader.prefetch.note else [], recipe.batch.size
    beyond = total_steps * size - recipe.run.epochs * loader.epoch_size
    if recipe.run.steps is None and beyond:
        found.append(
            f"warning: batch.size {size} does not divide the {loader.epoch_size} records of {recipe.run.epochs} "
            f"epochs: the last batch is filled up with {beyond} records of the next"
        )
    cut = sorted({group for group in loader.order.group_sizes if size % group})
    if cut:
        found.append(f"warning: batch.size {size} cuts groups of {cut} records that belong in one batch")
    micro_size, share = recipe.batch.micro_size, loader.slice.batch_size
    if micro_size and micro_size > share:
        found.append(
            f"warning: batch.micro_size {micro_size} is more than a process's {share} images: the batch is computed at "
            "once, without GradCache"
        )
    return [*found, *idle_losses(recipe, loader)]


def _resume(recipe: Recipe, store: CheckpointStore, step: int | None, trainer: Trainer, setting: Setting) -> list[str]:
    """Put the trainer where its newest checkpoint was written; return what is to be said about it."""
    if step is None:
        return ["resume=true, and there is no checkpoint yet: starting at step 0"] if recipe.resume else []
    data = states.read_record(store.path(step))
    differing = states.compare(precision_words.in_words(data["setting"]), setting)
    differing += states.compare_versions(data["versions"])
    states.restore(trainer, store.path(step), data)
    if states.measures_otherwise(data["setting"], setting):
        trainer.state = replace(trainer.state, best=None)
    return [f"going on from {store.path(step)}", *(f"warning: {note}" for note in differing)]
