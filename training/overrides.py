"""`key=value` words -> a changed Recipe. An unknown or mistyped key is an error that names the nearest key."""

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace

from vladva_training.config import Recipe, flat

_BIG_BATCH = (
    "gradients summed over separate batches add no negatives, so the batch would be big in name only: set batch.size "
    "to the real batch size and batch.micro_size to what fits in memory; GradCache computes the gradients of the whole "
    "batch"
)
_GLOBAL = (
    "batch.size counts the images over all processes, which share them equally; batch.micro_size is what one process "
    "holds in memory at a time"
)
_WHOLE = "no sample is dropped and no batch is short: an epoch's last batch is filled from the next epoch"
_GATHERED = "every process always sees the global batch, gathered with gradients"
_GRAD_CACHE = (
    "GradCache has no switch: it is used whenever batch.micro_size is below a process's share of batch.size; "
    "batch.micro_size=none computes the share at once"
)
_LAUNCHER = "set by the launcher: torchrun --nproc-per-node N -m vladva_training.cli RECIPE ..."
_DEVICE = "the device is not part of a recipe: use --device"
_ACCUM_FREQ = (
    "open_clip's --accum-freq K with --batch-size B on G GPUs is batch.size=K*B*G with batch.micro_size=B here, "
    "computed by GradCache"
)

REFUSED: dict[str, str] = {  # names from other trainers that would be misleading here
    **dict.fromkeys(("gradient_accumulation_steps", "accumulate_grad_batches", "gradient_accumulation"), _BIG_BATCH),
    **dict.fromkeys(("accumulation_steps", "grad_accum", "accum_steps", "accum_iter", "update_freq"), _BIG_BATCH),
    **dict.fromkeys(("per_device_batch_size", "per_device_train_batch_size", "per_gpu_batch_size"), _GLOBAL),
    **dict.fromkeys(("local_batch_size", "batch_size", "train_batch_size", "global_batch_size"), _GLOBAL),
    **dict.fromkeys(("drop_last", "dataloader_drop_last", "drop_remainder"), _WHOLE),
    **dict.fromkeys(("local_loss", "gather_with_grad", "negatives_cross_device", "gather_features"), _GATHERED),
    **dict.fromkeys(("grad_cache", "gradcache", "use_grad_cache", "gc_chunk_size", "gc_q_chunk_size"), _GRAD_CACHE),
    **dict.fromkeys(("world_size", "num_gpus", "nproc_per_node", "devices", "num_processes"), _LAUNCHER),
    "accum_freq": _ACCUM_FREQ,
    "device": _DEVICE,
}
OTHER_NAMES: dict[str, str] = {  # other trainers' names for our keys, too different to be found by spelling
    **dict.fromkeys(("lr", "rate"), "optim.learning_rate"),
    **dict.fromkeys(("wd",), "optim.weight_decay"),
    **dict.fromkeys(("warmup", "warmup_ratio", "warmup_steps"), "optim.warmup_share"),
    **dict.fromkeys(("grad_clip_norm", "clip_grad", "gradient_clip_val"), "optim.max_grad_norm"),
    **dict.fromkeys(("ema",), "optim.ema_decay"),
    **dict.fromkeys(("bf16", "amp", "fp16", "mixed_precision"), "batch.autocast"),
    **dict.fromkeys(("dtype", "torch_dtype"), "model.precision"),
    **dict.fromkeys(("chunk_size", "mini_batch_size", "micro_batch_size"), "batch.micro_size"),
    **dict.fromkeys(("max_steps", "num_steps", "total_steps"), "run.steps"),
    **dict.fromkeys(("num_train_epochs", "max_epochs", "num_epochs"), "run.epochs"),
    **dict.fromkeys(("save_steps", "save_every", "save_frequency"), "run.checkpoint_every"),
    **dict.fromkeys(("save_total_limit",), "run.keep_last"),
    **dict.fromkeys(("eval_steps", "val_frequency"), "run.evaluate_every"),
    **dict.fromkeys(("train_data", "dataset"), "data.train"),
    **dict.fromkeys(("val_data", "eval_data"), "data.evaluation"),
    **dict.fromkeys(("workers", "dataloader_num_workers"), "data.num_workers"),
    **dict.fromkeys(("lora_r", "rank"), "model.lora_rank"),
    **dict.fromkeys(("grad_checkpointing", "activation_checkpointing"), "model.gradient_checkpointing"),
    **dict.fromkeys(("logs", "out_dir", "save_dir"), "output_dir"),
    **dict.fromkeys(("resume_from_checkpoint",), "resume"),
}


def apply(recipe: Recipe, words: Iterable[str]) -> Recipe:
    """Return the recipe with the given keys changed.

    Args:
        recipe: where the other keys keep their values from.
        words: `key=value`, with keys as `config.flat` names them (`optim.learning_rate=1e-4`). Values: `none`, `true`,
            `false`, tuples with commas (commas in braces belong to the item). `~` in output_dir is the home directory,
            which a shell does not expand after an equals sign.

    Raises:
        ValueError: not `key=value`, an unknown key (names the nearest), a key given twice, a key of other trainers that
            would be misleading here, a value of the wrong type or one that the recipe refuses.
    """
    changes: dict[str, object] = {}
    known = key_types(recipe)
    for word in words:
        key, value = _split(word)
        _refuse(key, known)
        if key in changes:
            raise ValueError(f"{key} is given twice; remove one")
        changes[key] = parse(key, value, known[key])
    if "model.name" in changes and changes["model.name"] != recipe.model.name:
        changes.setdefault("model.pretrained", None)  # the recipe's tag belongs to the recipe's model
    return _changed(recipe, changes)


def key_types(recipe: Recipe) -> dict[str, object]:
    """Return every key that can be set with the type of its value, in the order of `config.flat`."""
    hints: dict[str, object] = {}
    for item in fields(recipe):
        value = getattr(recipe, item.name)
        if is_dataclass(value):
            hints |= {f"{item.name}.{key}": hint for key, hint in typing.get_type_hints(type(value)).items()}
        else:
            hints[item.name] = typing.get_type_hints(type(recipe))[item.name]
    del hints["name"]  # identifies the recipe
    return {key: hints[key] for key in flat(recipe) if key in hints}


def parse(key: str, text: str, hint: object) -> object:
    """Read a value of type `hint`: int, float, bool, str, a tuple of one of them, or any of these or None.

    Raises:
        ValueError: states the key, the value found and what is expected.
    """
    if isinstance(hint, types.UnionType):
        inner = next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        if text.lower() == "none":
            return None
        if not text:
            raise ValueError(f"{key} is empty, expected {expected_type(hint)}")
        return _one(key, text, inner, hint)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return tuple(_one(key, part, item, hint) for part in split_commas(text))
    return _one(key, text, hint, hint)


def as_text(value: object) -> str:
    """Write a value as `parse` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def split_commas(text: str) -> list[str]:
    """Split at commas outside braces (those inside belong to a source, `wds:/data/{00,01}.tar`); drop empty parts."""
    parts, depth = [""], 0
    for character in text:
        depth = max(0, depth + {"{": 1, "}": -1}.get(character, 0))
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def expected_type(hint: object) -> str:
    """Describe in words what a value of this type looks like."""
    if isinstance(hint, types.UnionType):
        return f"{expected_type(typing.get_args(hint)[0])} or none"
    if typing.get_origin(hint) is tuple:
        return f"{_NAMES[typing.get_args(hint)[0]][1]} separated by commas"
    return _NAMES[hint][0]


def suggest(key: str, known: Iterable[str]) -> str:
    """Name the known keys nearest to an unknown one: first those with the same last part, then by spelling."""
    known = list(known)
    last = key.rpartition(".")[2]
    lasts = {name.rpartition(".")[2]: name for name in known}
    near = [name for name in known if name.rpartition(".")[2] == last]
    near += [OTHER_NAMES[last]] if last in OTHER_NAMES else []
    near += difflib.get_close_matches(key, known, n=3, cutoff=0.7) if not near else []
    near += [lasts[name] for name in difflib.get_close_matches(last, lasts, n=3, cutoff=0.6)] if not near else []
    section = [name for name in known if name.startswith(key.partition(".")[0] + ".")]
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(near))}?"
    if section:
        return f"{key.partition('.')[0]} has {', '.join(name.partition('.')[2] for name in section)}"
    return "`vladva-train RECIPE --dry-run` lists every key"


_NAMES: dict[object, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
}


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


_READERS: dict[object, Callable[[str], object]] = {
    int: int,
    float: _number,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    str: str,
}


def _one(key: str, text: str, hint: object, whole: object) -> object:
    try:
        return _READERS[hint](text)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{key} is {text!r}, expected {expected_type(whole)}") from error


def _split(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"{word!r} is not a setting, expected key=value, such as optim.learning_rate=1e-4")
    return key.strip().lstrip("-").replace("-", "_"), value.strip()


def _refuse(key: str, known: dict[str, object]) -> None:
    if key in known:
        return
    if reason := REFUSED.get(key.rpartition(".")[2]):
        raise ValueError(f"{key} is refused: {reason}")
    raise ValueError(f"unknown key {key!r}; {suggest(key, known)}")


def _changed(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """Change each section once, so that keys that are only valid together can come in any order."""
    sections: dict[str, dict[str, object]] = {}
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, {})[name] = value
    top = sections.pop("", {})
    return replace(recipe, **top, **{name: replace(getattr(recipe, name), **new) for name, new in sections.items()})
