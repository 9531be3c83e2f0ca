"""Checks everything that a run needs except the weights: packages, directory, memory, data, settings on resume.

Loading the weights may take minutes, so all other problems must be found before that.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.interface import extras, precision_words
from vladva_clip.records.records import Source
from vladva_training.config import Recipe
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.examples import ExampleMaker
from vladva_training.data.loader import Loader, Slice, Workers, make_loader
from vladva_training.data.probe import probe, require_readable
from vladva_training.data.specs import open_source
from vladva_training.plan.architecture import find_base
from vladva_training.plan.caption_lengths import needs_download, open_some
from vladva_training.plan.fit import Fit
from vladva_training.processes.distributed import Processes
from vladva_training.processes.faults import Faults
from vladva_training.processes.sharding import require_torch
from vladva_training.recipes import RECIPES
from vladva_training.run import state as states
from vladva_training.run.checkpoints import CheckpointStore
from vladva_training.run.measuring import refuse_metric_alone, require_metric
from vladva_training.run.output_place import check_place, open_store
from vladva_training.run.setting import Setting, compare
from vladva_training.step.trainable import load_reader


@dataclass(frozen=True)
class Ready:
    """What a run has opened before its model is loaded.

    Attributes:
        store: its checkpoints.
        newest: the step of the newest checkpoint, None if there is none.
        fit: whether the run fits into the memory of its device.
        loader: this process's loader over the sources of `data.train`.
        evaluation: the source of `data.evaluation`; None without one, and in processes other than the first.
        preprocess: the model's own transform.
    """

    store: CheckpointStore
    newest: int | None
    fit: Fit
    loader: Loader
    evaluation: Source | None
    preprocess: Callable


def look(recipe: Recipe, processes: Processes) -> Ready:
    """Open and check everything except the weights; all processes finish this before any of them loads the model.

    Raises:
        ValueError: all problems that were found; the same in every process.
    """
    faults = Faults()
    _check_packages(recipe, faults)
    with faults.noted():
        check_sharding(recipe, processes)
    store, newest = open_store(recipe, processes, faults)
    with faults.noted():
        fit = Fit.of_run(recipe, processes.device)
    sources = _open_all(recipe.data.train, open_source, faults, recipe.data.max_bad_share < 1)
    evaluation = _open_evaluation(recipe, faults) if processes.is_main else None
    faults.share(processes)
    with faults.noted():
        _check_resume(recipe, store, newest, processes.world_size, tuple(map(len, sources)))
    with faults.noted():
        tokenizer, preprocess = load_reader(recipe.model)
        loader = _open_loader(recipe, processes, sources, tokenizer, preprocess)
        if evaluation is not None:
            require_metric(recipe, evaluation, loader.splitter)
    faults.share(processes)
    return Ready(store, newest, fit, loader, evaluation, preprocess)


def look_from_afar(recipe: Recipe, elsewhere: bool = False) -> None:
    """Check for a dry run whatever can be checked without changing, downloading or loading anything.

    Data sources that are written in the recipe itself are placeholders for the user's own, and may be missing.

    Args:
        recipe: of the run.
        elsewhere: the plan is for another machine, so sources may be missing here, and packages for CUDA. Without CUDA
            here, a recipe that needs it is always planned for another machine.

    Raises:
        ValueError: all problems that were found.
    """
    faults, evaluation = Faults(), recipe.data.evaluation
    _check_packages(recipe, faults, elsewhere or not torch.cuda.is_available())
    with faults.noted():
        newest = check_place(recipe)
    with faults.noted():
        if evaluation is None:
            refuse_metric_alone(recipe)
    of_data = Faults() if elsewhere else faults
    sources = _open_from_afar(recipe, "train", recipe.data.train, of_data)
    measured = _open_from_afar(recipe, "evaluation", [evaluation] if evaluation else [], of_data)
    faults.raise_if_any()
    with faults.noted():
        _check_resume(recipe, CheckpointStore(recipe.output_dir, 1), newest, int(os.environ.get("WORLD_SIZE", "1")))
    with faults.noted():
        _check_captions_from_afar(recipe, sources, measured)
    faults.raise_if_any()


def _check_packages(recipe: Recipe, faults: Faults, without_cuda: bool = False) -> None:
    """Check the optional packages that a run needs, except those of its sources."""
    with faults.noted():
        extras.require("accelerate", purpose="training")
    with faults.noted():
        if recipe.model.train == "qlora" and not without_cuda:
            extras.require("bitsandbytes", purpose="model.train=qlora")


def check_sharding(recipe: Recipe, processes: Processes) -> None:
    """Check that the weights can be spread over the processes, if full tuning has several.

    Raises:
        ValueError: a torch that is too old, or `model.compile`.
    """
    if recipe.model.train != "full" or processes.world_size == 1:
        return
    require_torch(processes.device)
    if recipe.model.compile:
        raise ValueError(
            "model.compile=true with model.train=full on several processes was never tried: use model.compile=false"
        )


def _open_from_afar(recipe: Recipe, key: str, specs: Sequence[str], faults: Faults) -> list[Source]:
    """Open parts of a key's sources that need no download; failures count unless the recipe's own value is used."""
    written = RECIPES[recipe.name]().data if recipe.name in RECIPES else None
    if written is not None and getattr(written, key) == getattr(recipe.data, key):
        faults = Faults()  # the recipe's placeholders: their faults are dropped
    readable = key == "train" and recipe.data.max_bad_share < 1
    return _open_all([spec for spec in specs if not needs_download(spec)], _some_of, faults, readable)


def _some_of(spec: str) -> Source:
    return open_some(spec)[0]


def _open_all(
    specs: Sequence[str], opened: Callable[[str], Source], faults: Faults, readable: bool = False
) -> list[Source]:
    """Open all sources and, with `readable`, require a readable record in each; failures are added to `faults`."""
    sources = []
    for spec in specs:
        with faults.noted():
            sources.append(source := opened(spec))
            if readable:
                require_readable(source)
    return sources


def _open_evaluation(recipe: Recipe, faults: Faults) -> Source | None:
    if recipe.data.evaluation is None:
        with faults.noted():
            refuse_metric_alone(recipe)
        return None
    return next(iter(_open_all([recipe.data.evaluation], open_source, faults)), None)


def _check_resume(
    recipe: Recipe, store: CheckpointStore, step: int | None, world_size: int, lengths: tuple[int, ...] | None = None
) -> None:
    """Compare the newest checkpoint with the run that continues it; the base's weights are compared later.

    Raises:
        ValueError: an unreadable file of the checkpoint; settings that must not differ.
    """
    if step is None:
        return
    directory = store.path(step)
    stored = precision_words.in_words(states.read_record(directory)["setting"])
    _check_tensors(directory)
    lengths = stored.get(states.LENGTHS) if lengths is None else lengths
    compare(stored, Setting(recipe, world_size, lengths))


def _check_tensors(directory: Path) -> None:
    """Check the header of a checkpoint's tensors, which gives the length that the file must have."""
    try:
        with safe_open(directory / states.TENSORS, "pt") as file:
            file.keys()
    except (OSError, SafetensorError) as error:
        raise ValueError(states.unreadable(directory, states.TENSORS, error)) from error


def _check_captions_from_afar(recipe: Recipe, sources: list[Source], measured: list[Source]) -> None:
    base = find_base(recipe.model)
    if base is None or base.tokenizer is None:
        return
    limits = recipe.data.short_max_tokens, recipe.data.long_max_tokens
    splitter = CaptionSplitter(base.tokenizer, *limits, base.config.prompt)
    probe(sources, splitter, hard_negatives=recipe.loss.hard_negatives > 0)
    for source in measured:
        require_metric(recipe, source, splitter)


def _open_loader(
    recipe: Recipe, processes: Processes, sources: list[Source], tokenizer: VladvaTokenizer, preprocess: Callable
) -> Loader:
    splitter = CaptionSplitter(tokenizer, recipe.data.short_max_tokens, recipe.data.long_max_tokens)
    with_other_short, with_facts = recipe.loss.text_text_weight > 0, recipe.loss.false_negatives == "known"
    return make_loader(
        sources,
        ExampleMaker(splitter, preprocess, recipe.seed, recipe.loss.hard_negatives, with_other_short, with_facts),
        Slice(processes.share(recipe.batch.size), processes.rank, processes.world_size),
        tokenizer.eot_token_id,
        weights=recipe.data.weights or None,
        in_turn=recipe.data.in_turn,
        workers=Workers(recipe.data.num_workers, recipe.data.worker_timeout, processes.device.type == "cuda"),
        output_dir=recipe.output_dir,
        max_bad_share=recipe.data.max_bad_share,
    )
