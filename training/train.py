"""A run, from its recipe to its adapter. Reads from top to bottom."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from vladva_clip import devices, precision_words
from vladva_clip.tokenizer import VladvaTokenizer
from vladva_training import state as states
from vladva_training.adapters import load_trainable
from vladva_training.captions import CaptionSplitter
from vladva_training.checkpoints import CheckpointStore, remove_leftovers
from vladva_training.config import Recipe
from vladva_training.data.loader import Loader, make_loader
from vladva_training.data.probe import READ, SEVERAL_SHORT, WITH_NEGATIVES
from vladva_training.data.specs import open_source
from vladva_training.distributed import Processes
from vladva_training.fused import FusedForward
from vladva_training.grad_cache import GlobalStep
from vladva_training.measuring import Measuring
from vladva_training.optim import EMA, build_optimizer, build_schedule
from vladva_training.output_lock import alone
from vladva_training.product import ADAPTER
from vladva_training.progress import open_progress
from vladva_training.rescue import before_the_first_step
from vladva_training.run import Run
from vladva_training.signals import StopSignals
from vladva_training.state import Setting, Trainer


def train(recipe: Recipe, device: str | None = None) -> int:
    """Train, evaluate and write `adapter/`, `checkpoints/` and `metrics.jsonl` into `recipe.output_dir`.

    Full fine-tuning writes `lvlm/` too, the adapter's base.

    Args:
        recipe: all that decides what is learned.
        device: where (see `vladva_clip.devices`); CUDA where there is one, else the CPU, for None.

    Returns:
        The exit status: 0, or after a SIGTERM or SIGINT, with the state saved, `run.sigterm_exit_code` or 130.

    Raises:
        ValueError: settings, sources, a device or a checkpoint that don't fit, and what to do.
        RunError: a loss that is not finite, a worker that died, a full disk, and whatever else ends a run; the state is
            saved where it can be.
    """
    place = None if device is None else _place(device)
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
    share = processes.share(recipe.batch.size)
    store, found = _open_store(recipe, processes)

    torch.manual_seed(recipe.seed)
    model, preprocess = load_trainable(recipe.model, processes.device)
    fused = FusedForward(model, recipe.loss, recipe.batch)

    tokenizer = VladvaTokenizer(str(model._base_directory))
    splitter = CaptionSplitter(tokenizer, recipe.data.short_max_tokens, recipe.data.long_max_tokens)
    loader = _open_loader(recipe, processes, share, splitter, preprocess, tokenizer.eot_token_id)
    measuring = Measuring.open(recipe, model, splitter, preprocess) if processes.is_main else Measuring.none()

    total_steps = recipe.run.steps or loader.steps(recipe.run.epochs)
    optimizer = build_optimizer(fused, recipe.optim)
    schedule = build_schedule(optimizer, recipe.optim, total_steps)
    gradients = GlobalStep(processes.wrap(fused), recipe)  # before the average, whose start is rank 0's weights
    ema = EMA(fused, recipe.optim.ema_decay) if recipe.optim.ema_decay else None
    trainer = Trainer(fused, optimizer, schedule, ema)

    lengths = tuple(map(len, loader.dataset.sources))
    setting = Setting(recipe, processes.world_size, lengths, model.config.base.fingerprint)
    notes = [*_warnings(recipe, loader, total_steps), *_resume(recipe, store, found, trainer, setting)]
    loader.next_batch = trainer.state.step
    progress = open_progress(recipe, total_steps, trainer.state, processes.is_main)
    for note in notes:
        progress.say(note)
    return Run(recipe, processes, store, setting, trainer, gradients, loader, measuring, progress, total_steps)


def _open_store(recipe: Recipe, processes: Processes) -> tuple[CheckpointStore, int | None]:
    """Open the run's directory; return its newest checkpoint's step too, None for none.

    Raises:
        ValueError: it can't be written, it has checkpoints already, not all processes see them.
    """
    store = CheckpointStore(recipe.output_dir, recipe.run.keep_last)
    if processes.is_main:
        _make_directory(store)
    processes.wait()
    newest = max(store.steps(), default=-1)
    if processes.largest(newest) != newest:
        raise ValueError(
            f"process {processes.rank} does not see the checkpoints in {store.directory} that others see; expected an "
            "output_dir on a file system that all machines share"
        )
    if newest >= 0 and not recipe.resume:
        raise ValueError(
            f"{store.directory} holds checkpoints of a run, the newest of step {newest}; go on with resume=true, or "
            "give another output_dir"
        )
    finished = store.directory.parent / ADAPTER
    if newest < 0 and finished.exists():
        raise ValueError(
            f"{finished} is there, but no checkpoint from which its run could go on; give another output_dir"
        )
    return store, None if newest < 0 else newest


def _make_directory(store: CheckpointStore) -> None:
    try:
        store.directory.mkdir(parents=True, exist_ok=True)
        store.clean()
        remove_leftovers(store.directory.parent)
        for path in store.directory.parent.glob("bad_records*.jsonl") if not store.steps() else ():
            path.unlink()  # of a run that never came to its first checkpoint
    except OSError as error:
        raise ValueError(f"output_dir {store.directory.parent} can't be written ({error}); give another") from error


def _open_loader(
    recipe: Recipe, processes: Processes, share: int, splitter: CaptionSplitter, preprocess: Callable, eos_id: int
) -> Loader:
    return make_loader(
        [open_source(spec) for spec in recipe.data.train],
        recipe.data.weights or None,
        splitter,
        preprocess,
        batch_size=share,
        rank=processes.rank,
        world_size=processes.world_size,
        seed=recipe.seed,
        num_workers=recipe.data.num_workers,
        timeout=recipe.data.worker_timeout,
        eos_id=eos_id,
        num_hard_negatives=recipe.loss.hard_negatives,
        with_other_short=recipe.loss.text_text_weight > 0,
        in_turn=recipe.data.in_turn,
        output_dir=recipe.output_dir,
        max_bad_share=recipe.data.max_bad_share,
        pin_memory=processes.device.type == "cuda",
    )


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
    if recipe.batch.micro_size and recipe.batch.micro_size > loader.batch_size:
        found.append(
            f"warning: batch.micro_size {recipe.batch.micro_size} is more than a process's {loader.batch_size} images: "
            "the batch is computed at once, without GradCache"
        )
    return [*found, *_idle_losses(recipe, loader)]


def _idle_losses(recipe: Recipe, loader: Loader) -> list[str]:
    """Parts of the loss that found nothing in the records looked at."""
    found = []
    for source, counts in zip(loader.dataset.sources, loader.probed, strict=True):
        if recipe.loss.hard_negatives and counts[READ] and not counts[WITH_NEGATIVES]:
            found.append(
                f"warning: loss.hard_negatives {recipe.loss.hard_negatives} adds nothing: none of the {counts[READ]} "
                f"records read in {source.name} has a short and false caption in hard_negatives"
            )
        if recipe.loss.text_text_weight and not counts[SEVERAL_SHORT]:
            found.append(
                f"warning: loss.text_text_weight {recipe.loss.text_text_weight} adds nothing: no image looked at in "
                f"{source.name} has two different short captions"
            )
    return found


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
