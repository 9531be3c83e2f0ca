"""`vladva-train RECIPE --dry-run`: what a run would do, without loading, downloading or training anything."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vladva_training import recipes
from vladva_training.architecture import Base, find_base
from vladva_training.captions import CaptionSplitter
from vladva_training.config import Recipe, flat
from vladva_training.data import shared_memory
from vladva_training.data.machine import in_words, local_processes
from vladva_training.data.records import BadRecord, Source, one_record
from vladva_training.data.shared_memory import Prefetch
from vladva_training.data.specs import open_source
from vladva_training.kernels import check_kernels
from vladva_training.memory import Lengths, Memory, Share, predict_memory, step_flops
from vladva_training.overrides import as_text

NUM_SAMPLED = 128  # records of each source
NUM_SHARDS = 2  # of a source that is many: indexing all of them may take an hour
ASSUMED_SHORT, ASSUMED_LONG = 14, 200  # tokens, where no source can be measured


@dataclass(frozen=True)
class Captions:
    """Lengths in ids: means over images (an image without one counts as 0) and the longest.

    records: their number, None where it is unknown. about: it was estimated.
    """

    short: float
    long: float
    longest_short: int
    longest_long: int
    records: int | None
    about: bool
    origin: str


def describe(recipe: Recipe, device: str | None = None) -> str:
    """Say what a run would do: every key, who trains, tokens per step, predicted memory and compute.

    Nothing is loaded or downloaded: sizes come from the registry, a local directory or the Hub's cache, captions are
    measured where their source is here (tar shards are indexed for it), and what can't be said is said to be unknown.

    Args:
        recipe: of the run.
        device: where it would compute, as `train` takes it.

    Raises:
        ValueError: an unknown model or tag, a local model that is none, an attention or a compiler that isn't here.
    """
    check_kernels(recipe, device)
    base = find_base(recipe.model)
    parts = [_settings(recipe)]
    if base is None:
        parts.append(
            f"Who trains, memory\n  unknown: {recipe.model.name} is in no cache here and a dry run downloads nothing; "
            f"fetch its small files with `python -c \"import vladva_clip; vladva_clip.get_tokenizer('...')\"`"
        )
        return "\n\n".join(parts)
    captions, share = measure(recipe, base), Share.of(recipe, _world_size())
    return "\n\n".join([*parts, _who_trains(recipe, base), _step(recipe, base, captions, share)])


def measure(recipe: Recipe, base: Base) -> Captions:
    """Measure the captions of the recipe's sources on a few records, or assume lengths and say why."""
    if base.tokenizer is None:
        return _assumed(recipe, f"the tokenizer of {base.config.base.id} is not here")
    try:
        opened = [_open_some(spec) for spec in recipe.data.train]
    except (ValueError, OSError) as error:
        return _assumed(recipe, str(error))
    splitter = CaptionSplitter(base.tokenizer, recipe.data.short_max_tokens, recipe.data.long_max_tokens)
    sampled = [_sample(source, splitter) for source, _ in opened]
    records = [round(len(source) * times) for source, times in opened]
    weights = recipe.data.weights or records
    weights = [weight / sum(weights) for weight in weights]
    return Captions(
        short=sum(weight * short for weight, (short, _, _, _) in zip(weights, sampled, strict=True)),
        long=sum(weight * long for weight, (_, long, _, _) in zip(weights, sampled, strict=True)),
        longest_short=max(longest for _, _, longest, _ in sampled),
        longest_long=max(longest for _, _, _, longest in sampled),
        records=sum(records),
        about=any(times != 1 for _, times in opened),
        origin=f"captions measured on up to {NUM_SAMPLED} records of each source",
    )


def _open_some(spec: str) -> tuple[Source, float]:
    """Open a source, of many shards two, without a download; and say how many times its records it stands for.

    Raises:
        ValueError: as `open_source`; a source that would have to be downloaded.
    """
    from vladva_training.data.paths import expand_files  # it brings braceexpand along

    kind, _, rest = spec.partition(":")
    if kind == "hf" and not Path(rest.partition(":")[0]).expanduser().is_dir():
        raise ValueError(f"{spec} is no directory here, and a dry run downloads nothing")
    shards = expand_files(rest, ".tar", spec) if kind == "wds" else []
    if len(shards) <= NUM_SHARDS:
        return open_source(spec), 1
    some = shards[:: -(-len(shards) // NUM_SHARDS)]
    return open_source("wds:" + "::".join(map(str, some))), len(shards) / len(some)


def _sample(source: Source, splitter: CaptionSplitter) -> tuple[float, float, int, int]:
    """Mean length of a short and of a long caption per image (with its end), and the longest of each."""
    short, long = [], []
    for index in range(0, len(source), max(1, -(-len(source) // NUM_SAMPLED))):
        try:
            with one_record(index):
                split = splitter.split(source.captions(index))
        except BadRecord:
            continue
        short.append([len(ids) for ids in split.short])
        long.append([len(ids) + 1 for ids in split.long])
    (mean_short, longest_short), (mean_long, longest_long) = (_mean_and_longest(found) for found in (short, long))
    return mean_short, mean_long, longest_short, longest_long


def _mean_and_longest(found: list[list[int]]) -> tuple[float, int]:
    means = [sum(lengths) / len(lengths) if lengths else 0 for lengths in found]
    return sum(means) / max(1, len(means)), max((max(lengths, default=0) for lengths in found), default=0)


def _assumed(recipe: Recipe, why: str) -> Captions:
    data = recipe.data
    short, long = min(ASSUMED_SHORT, data.short_max_tokens - 1), min(ASSUMED_LONG, data.long_max_tokens)
    origin = f"captions assumed to be of {short} and {long} ids: {' '.join(why.split())}"
    return Captions(short, long + 1, data.short_max_tokens - 1, data.long_max_tokens + 1, None, False, origin)


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun


def _settings(recipe: Recipe) -> str:
    written = flat(recipes.RECIPES[recipe.name]()) if recipe.name in recipes.RECIPES else flat(recipe)
    width = max(map(len, written))
    lines = [
        f"{' ' if value == written[key] else '*'} {key.ljust(width)}  {as_text(value)}"
        for key, value in flat(recipe).items()
    ]
    return "\n".join([f"Recipe {recipe.name} (* changed)", *lines])


def other_trainable(recipe: Recipe, base: Base) -> dict[str, int]:
    """Count what trains outside the LVLM, by name."""
    width = base.backbone.embed_dim
    image, text = base.soft_tokens
    soft = {"visual.soft_prompt.weight": image * width, "text.soft_prompt.weight": text * width}
    bias = {"logit_bias": 1} if recipe.loss.contrastive == "sigmoid" else {}
    return {**(soft if recipe.model.soft_prompt else {}), "logit_scale": 1, **bias}


def _who_trains(recipe: Recipe, base: Base) -> str:
    counts, modules = Counter(), Counter()
    for name, parameter in base.trained.items():
        group = re.sub(r"\.\d+\.", ".*.", re.sub(r"\.lora_[AB]\..*", "", name.removeprefix("lvlm.")))
        counts[group] += parameter.numel()
        modules[group] += not name.endswith("lora_A.default.weight")  # LoRA's two matrices are one module's
    outside = other_trainable(recipe, base)
    every, trained = (sum(p.numel() for p in some) for some in (base.backbone.parameters(), base.trained.values()))
    kind = f"LoRA of rank {recipe.model.lora_rank} on " if recipe.model.train in ("lora", "qlora") else ""
    lines = {f"{kind}{name} ({modules[name]})": count for name, count in counts.items()} | outside
    width = max(map(len, lines))
    about = "" if base.prompts else "; soft prompts estimated, no tokenizer here"
    return "\n".join(
        [
            f"Who trains: {trained + sum(outside.values()):,} parameters ({every - trained:,} frozen{about})",
            *(f"  {name.ljust(width)}  {count:>13,}" for name, count in lines.items()),
        ]
    )


def _step(recipe: Recipe, base: Base, captions: Captions, share: Share) -> str:
    mean, longest = _lengths(base, captions)
    with_long = recipe.loss.ntp_weight > 0
    outside = sum(other_trainable(recipe, base).values())
    memory = predict_memory(recipe, base.backbone, share, longest, base.num_visual_tokens, outside)
    flops = step_flops(recipe, base.backbone, share, mean, base.config.image.size)
    return "\n".join(
        [
            f"One step{_out_of(recipe, captions)}, {_processes()}: {_way(share)}",
            *_rows(recipe, base, mean, share.texts_per_image, with_long),
            f"  compute     {flops / 1e12:,.3g} TFLOP per process",
            f"  ({captions.origin})",
            "",
            *_memory(memory, share, longest, with_long),
            *_loader(recipe, share, base.config.image.size),
        ]
    )


def _rows(recipe: Recipe, base: Base, mean: Lengths, texts_per_image: int, with_long: bool) -> list[str]:
    images, visual = recipe.batch.size, base.num_visual_tokens
    texts, row = images * texts_per_image, mean.in_image_row(with_long)
    parts = f"{visual} visual, {mean.image - visual} of the prompt, {row - mean.image:.0f} of the caption"
    return [
        f"  image rows  {images:,} x {row:.0f} tokens ({parts})",
        f"  text rows   {texts:,} x {mean.text:.0f} tokens",
        f"  tokens      {images * row + texts * mean.text:,.0f}, padding apart",
    ]


def _way(share: Share) -> str:
    if not share.grad_cache:
        return f"all {share.images} images of a process at once"
    return f"GradCache, {-(-share.images // share.micro)} micro-batches of {share.micro} images each"


def _processes() -> str:
    return "1 process" if _world_size() == 1 else f"{_world_size()} processes"


def _lengths(base: Base, captions: Captions) -> tuple[Lengths, Lengths]:
    longest = base.lengths(captions.longest_short, captions.longest_long)
    return base.lengths(captions.short, captions.long), longest


def _out_of(recipe: Recipe, captions: Captions) -> str:
    steps = recipe.run.steps
    if steps is None and captions.records is not None:
        steps = -(-recipe.run.epochs * captions.records // recipe.batch.size)
        about = "about " if captions.about else ""
        return f" of {about}{steps:,}"
    return f" of {steps:,}" if steps is not None else ""


def _loader(recipe: Recipe, share: Share, image_size: int) -> list[str]:
    """What the loader's workers need, of shared memory and in all, and what there is."""
    batch, wanted = share.images * 3 * image_size**2 * 4, Prefetch(recipe.data.num_workers)
    if not wanted.num_workers:
        return []
    shared, whole = wanted.shared_bytes(batch), wanted.memory_bytes(batch)
    lines = [
        "",
        f"Loader per process: {wanted.num_workers} workers x {wanted.ahead} batches of {in_words(batch)}: "
        f"{in_words(shared)} of shared memory, {in_words(whole)} of memory in all",
        f"  in a container: docker run {shared_memory.shm_size(shared * local_processes())}; "
        f"here {shared_memory.figures()}",
    ]
    try:
        note = shared_memory.fit(wanted.num_workers, batch).note
    except ValueError as error:
        note = str(error)
    return [*lines, *([f"  {note}"] if note else [])]


def _memory(memory: Memory, share: Share, longest: Lengths, with_long: bool) -> list[str]:
    parts = {name: size for name, size in vars(memory).items() if size}
    width = max(map(len, parts))
    rows = f"{share.micro} image rows of {longest.in_image_row(with_long):.0f} tokens, text rows of {longest.text:.0f}"
    return [
        f"Memory per process, predicted: {memory.total / 2**30:,.2f} GiB, at the longest captions ({rows})",
        *(f"  {name.replace('_', ' ').ljust(width)}  {size / 2**30:>9,.3f} GiB" for name, size in parts.items()),
        "  and what the device itself takes (see docs/training.md)",
    ]
