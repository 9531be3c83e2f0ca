"""`vladva-train RECIPE --dry-run`: what a run would do, without loading, downloading or training anything."""

import re
from collections import Counter

from vladva_clip.interface.machine import in_words, local_processes
from vladva_clip.workers import shared_memory
from vladva_clip.workers.shared_memory import Prefetch
from vladva_training import recipes
from vladva_training.config import Recipe, flat
from vladva_training.overrides import as_text
from vladva_training.plan import hours
from vladva_training.plan.architecture import Base, find_base, other_trainable, refuse_next_tokens
from vladva_training.plan.caption_lengths import Captions, measure
from vladva_training.plan.compute import step_flops
from vladva_training.plan.fit import Fit, Room, device_of
from vladva_training.plan.hours import Assumed
from vladva_training.plan.memory import Lengths, Memory, Share
from vladva_training.step.half_precision import refuse_float16
from vladva_training.step.kernels import check_kernels


def describe(recipe: Recipe, device: str | None = None, assumed: Assumed | None = None) -> str:
    """Describe a run: every key, what trains, tokens per step, compute, predicted memory, whether it fits, hours.

    Nothing is loaded or downloaded. Sizes come from the registry, a local directory or the Hub's cache; captions are
    measured if their source is on this machine (tar shards get an index). The rest is reported as unknown.

    Args:
        recipe: of the run.
        device: where (see `vladva_clip.interface.devices`); None for CUDA if there is one, else the CPU.
        assumed: a GPU in place of the device here, its utilization and price; None for nothing but this machine.

    Raises:
        ValueError: an unknown model or tag, a local directory that isn't a model, settings that can't be trained on any
            machine; without `assumed.gpu`, an attention or a compiler that isn't installed here.
    """
    assumed = assumed or Assumed()
    check_kernels(recipe, device, elsewhere=assumed.gpu is not None)
    base = find_base(recipe.model)
    parts = [_settings(recipe)]
    if base is None:
        parts.append(
            f"What trains, memory\n  unknown: {recipe.model.name} isn't cached, and a dry run downloads nothing; "
            f"fetch its small files with `python -c \"import vladva_clip; vladva_clip.get_tokenizer('...')\"`"
        )
        return "\n\n".join(parts)
    refuse_float16(base.backbone, recipe.model)
    refuse_next_tokens(recipe, base)
    fit = Fit(recipe, base, Room.of_gpu(assumed.gpu) if assumed.gpu else Room.on(device_of(device)))
    return "\n\n".join([*parts, _who_trains(recipe, base), _step(fit, measure(recipe, base), assumed)])


def _settings(recipe: Recipe) -> str:
    written = flat(recipes.RECIPES[recipe.name]()) if recipe.name in recipes.RECIPES else flat(recipe)
    width = max(map(len, written))
    lines = [
        f"{' ' if value == written[key] else '*'} {key.ljust(width)}  {as_text(value)}"
        for key, value in flat(recipe).items()
    ]
    return "\n".join([f"Recipe {recipe.name} (* changed)", *lines])


def _who_trains(recipe: Recipe, base: Base) -> str:
    counts, modules = Counter(), Counter()
    for name, parameter in base.trained.items():
        group = re.sub(r"\.\d+\.", ".*.", re.sub(r"\.lora_[AB]\..*", "", name.removeprefix("lvlm.")))
        counts[group] += parameter.numel()
        modules[group] += not name.endswith("lora_A.default.weight")  # LoRA's two matrices belong to one module
    outside = other_trainable(recipe, base)
    every, trained = (sum(p.numel() for p in some) for some in (base.backbone.parameters(), base.trained.values()))
    kind = f"LoRA of rank {recipe.model.lora_rank} on " if recipe.model.train in ("lora", "qlora") else ""
    lines = {f"{kind}{name} ({modules[name]})": count for name, count in counts.items()} | outside
    width = max(map(len, lines))
    about = "" if base.prompts else "; soft prompts are estimated without a tokenizer"
    return "\n".join(
        [
            f"What trains: {trained + sum(outside.values()):,} parameters ({every - trained:,} frozen{about})",
            *(f"  {name.ljust(width)}  {count:>13,}" for name, count in lines.items()),
        ]
    )


def _step(fit: Fit, captions: Captions, assumed: Assumed) -> str:
    recipe, base, share = fit.recipe, fit.base, Share.of(fit.recipe, fit.world_size)
    mean, longest = _lengths(base, captions)
    with_long, memory = recipe.loss.ntp_weight > 0, fit.predict(captions, share)
    flops = step_flops(recipe, base.backbone, share, mean, base.config.image.size)
    steps = _steps(recipe, captions)
    return "\n".join(
        [
            f"One step{_out_of(recipe, captions, steps)}, {_processes(fit.world_size)}: {_way(share)}",
            *_rows(recipe, base, mean, share.texts_per_image, with_long),
            f"  compute     {flops / 1e12:,.3g} TFLOP per process",
            f"  ({captions.origin})",
            "",
            *_memory(memory, share, longest, with_long),
            f"  a device with less than {in_words(fit.least)} in all is refused",
            fit.verdict(memory),
            *hours.lines(fit, flops, memory, steps, assumed),
            *_loader(recipe, share, base.config.image.size, here=assumed.gpu is None),
        ]
    )


def _rows(recipe: Recipe, base: Base, mean: Lengths, texts_per_image: int, with_long: bool) -> list[str]:
    images, visual = recipe.batch.size, base.num_visual_tokens
    texts, row = images * texts_per_image, mean.in_image_row(with_long)
    turn, caption = (mean.turn, mean.long) if with_long else (0, 0)
    behind = f", {turn:.0f} of the second turn" if turn else ""
    parts = f"{visual} visual, {mean.image - visual} of the prompt{behind}, {caption:.0f} of the caption"
    return [
        f"  image rows  {images:,} x {row:.0f} tokens ({parts})",
        f"  text rows   {texts:,} x {mean.text:.0f} tokens",
        f"  tokens      {images * row + texts * mean.text:,.0f}, without padding",
    ]


def _way(share: Share) -> str:
    if not share.grad_cache:
        return f"all {share.images} images of a process at once"
    each = f"{share.micro} images each" if share.micro > 1 else "1 image each"
    return f"GradCache, {-(-share.images // share.micro)} micro-batches of {each}"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _lengths(base: Base, captions: Captions) -> tuple[Lengths, Lengths]:
    longest = base.lengths(captions.longest_short, captions.longest_long)
    return base.lengths(captions.short, captions.long, captions.share_long), longest


def _steps(recipe: Recipe, captions: Captions) -> int | None:
    """The run's steps; None if they depend on data that isn't here."""
    if recipe.run.steps is not None or captions.records is None:
        return recipe.run.steps
    return -(-recipe.run.epochs * captions.records // recipe.batch.size)


def _out_of(recipe: Recipe, captions: Captions, steps: int | None) -> str:
    about = "about " if recipe.run.steps is None and captions.about else ""
    return f" of {about}{steps:,}" if steps is not None else ""


def _loader(recipe: Recipe, share: Share, image_size: int, here: bool) -> list[str]:
    """What the loader's workers need in shared memory and in all, and what is available if they will run here."""
    batch, wanted = share.images * 3 * image_size**2 * 4, Prefetch(recipe.data.num_workers)
    if not wanted.num_workers:
        return []
    shared, whole = wanted.shared_bytes(batch), wanted.memory_bytes(batch)
    lines = [
        "",
        f"Loader per process: {wanted.num_workers} workers x {wanted.ahead} batches of {in_words(batch)}: "
        f"{in_words(shared)} of shared memory, {in_words(whole)} of memory in all",
        f"  in a container: docker run {shared_memory.shm_size(shared * local_processes())}"
        + (f"; here {shared_memory.figures()}" if here else ""),
    ]
    if not here:
        return lines
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
        "  plus what the device itself uses (see docs/training.md)",
    ]
