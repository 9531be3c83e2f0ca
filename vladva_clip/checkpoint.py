"""One directory, strict: config and tensors of an adapter. Knows nothing of the model object."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from vladva_clip.config import VladvaConfig, read_json

CONFIG, SOFT_PROMPT = "vladva_config.json", "soft_prompt.safetensors"
LORA_CONFIG, LORA = "adapter_config.json", "adapter_model.safetensors"  # PEFT's own names
OPEN_CLIP_CONFIG, MARKER = "open_clip_config.json", "vladva_clip"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """An adapter as data.

    config: with soft slot counts and base fingerprint filled. soft_prompt: "image" and "text", each
    `(num_soft_tokens, D)`. lora_config and lora: PEFT's own config and tensors, None and empty without LoRA.
    """

    config: VladvaConfig
    soft_prompt: dict[str, torch.Tensor]
    lora_config: dict[str, Any] | None = None
    lora: dict[str, torch.Tensor] = field(default_factory=dict)


def read(directory: Path | str) -> Checkpoint:
    """Read and check an adapter directory.

    Raises:
        ValueError: a file that is missing, corrupted, misshapen, of the wrong dtype, or a pickle.
    """
    directory = Path(directory)
    _refuse_pickles(directory)
    config = VladvaConfig.from_dict(read_json(directory / CONFIG))
    soft_prompt = _read_tensors(directory / SOFT_PROMPT)
    _check_soft_prompt(soft_prompt, config, directory / SOFT_PROMPT)
    has_config, has_tensors = (directory / LORA_CONFIG).exists(), (directory / LORA).exists()
    if has_config != has_tensors:
        missing = LORA if has_config else LORA_CONFIG
        raise ValueError(f"{missing} is missing from {directory}; an adapter has both LoRA files or neither")
    if not has_config:
        return Checkpoint(config, soft_prompt)
    lora = _read_tensors(directory / LORA)
    _check_floating(lora, directory / LORA)
    return Checkpoint(config, soft_prompt, read_json(directory / LORA_CONFIG), lora)


def write(directory: Path | str, checkpoint: Checkpoint, open_clip_config: dict[str, Any], extras: Any = None) -> None:
    """Write an adapter directory: all in a scratch directory first, then renamed into place, file by file.

    An interruption leaves the old adapter or the new one, or (between two renames) a directory that does not load.

    Args:
        directory: made if missing; files of other names in it are left alone.
        checkpoint: what to write.
        open_clip_config: `model_cfg` and `preprocess_cfg`; our marker key is added to it and to its `model_cfg`. An
            open_clip that doesn't know us refuses the latter, where it would build a CLIP with random weights.
        extras: called with the temporary directory to add further files (tokenizer).
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
    try:
        _write_json(scratch / CONFIG, checkpoint.config.to_dict())
        _write_json(scratch / OPEN_CLIP_CONFIG, _marked(open_clip_config, checkpoint.config))
        _write_tensors(scratch / SOFT_PROMPT, checkpoint.soft_prompt)
        if checkpoint.lora_config is not None:
            _write_json(scratch / LORA_CONFIG, checkpoint.lora_config)
            _write_tensors(scratch / LORA, checkpoint.lora)
        if extras is not None:
            extras(scratch)
        for name in (CONFIG, LORA_CONFIG, LORA):  # of an earlier save, the config first: without it nothing loads
            (directory / name).unlink(missing_ok=True)
        for path in sorted(scratch.iterdir(), key=lambda path: path.name == CONFIG):  # and last: now it loads
            if path.is_dir():  # such as additional_chat_templates/; a folder can't be renamed over another
                shutil.rmtree(directory / path.name, ignore_errors=True)
            os.replace(path, directory / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _marked(open_clip_config: dict[str, Any], config: VladvaConfig) -> dict[str, Any]:
    marker = {MARKER: {"format_version": config.format_version}}
    return {**open_clip_config, "model_cfg": {**open_clip_config.get("model_cfg", {}), **marker}, **marker}


def _refuse_pickles(directory: Path) -> None:
    found = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    if found:
        raise ValueError(
            f"{directory} holds {', '.join(found)}: pickles can run code and are refused; remove or convert them"
        )


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(f"{path.name} is missing from {path.parent}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable safetensors file ({error}): corrupted or cut; get it again") from error


def _check_soft_prompt(tensors: dict[str, torch.Tensor], config: VladvaConfig, path: Path) -> None:
    counts = {"image": config.prompt.num_image_soft_tokens, "text": config.prompt.num_text_soft_tokens}
    if set(tensors) != set(counts):
        raise ValueError(f"{path} holds {sorted(tensors)}, expected exactly {sorted(counts)}")
    _check_floating(tensors, path)
    for side, count in counts.items():
        if count is None or tuple(tensors[side].shape) != (count, config.embed_dim):
            raise ValueError(
                f"{path}: {side!r} has shape {tuple(tensors[side].shape)}, the config says {(count, config.embed_dim)}"
            )


def _check_floating(tensors: dict[str, torch.Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"{path}: {name!r} is {tensor.dtype}, expected float32, bfloat16 or float16")
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: {name!r} holds NaN or infinity")


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    # not save_file: its files are readable by their owner alone, whatever the umask says
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))
