"""Writes tensors to safetensors files, one shard at a time."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from tqdm import tqdm

from vladva_clip.storage import disk, whole
from vladva_clip.storage.weights import INDEX

MAX_SHARD_SIZE = "2GB"  # releases of safetensors before 0.8 copy a shard to write it


def write(
    directory: Path,
    shapes: dict[str, torch.Tensor],
    read: Callable[[str], torch.Tensor],
    max_shard_size: str | int = MAX_SHARD_SIZE,
) -> None:
    """Write model.safetensors, or shards with their index, into a directory.

    At most one shard is in memory. A tensor larger than the limit gets a shard of its own.

    Args:
        directory: where the files go.
        shapes: every tensor on the meta device, to plan the shards.
        read: returns a tensor by name.
        max_shard_size: bytes, or a text such as "5GB" (powers of ten, as on the Hub).

    Raises:
        ValueError: an invalid size.
        OSError: the disk is full or refuses to write.
    """
    plan = split_torch_state_dict_into_shards(
        shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=_checked(max_shard_size)
    )
    with tqdm(
        total=len(shapes), desc="writing", unit=" tensors", delay=1, disable=None, leave=False
    ) as bar:  # terminals
        for name, tensors in plan.filename_to_tensors.items():
            _write_shard(directory / name, {tensor: read(tensor) for tensor in tensors})
            bar.update(len(tensors))
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (directory / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_shard(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with disk.writing(path.name):
        path.touch()
        save_file(tensors, path, metadata={"format": "pt"})
    whole.set_usual_mode(path)  # safetensors makes files that only their owner can read


def _checked(size: str | int) -> str | int:
    """Refuse invalid sizes: the Hub's client accepts 0, and ignores a size with a sign."""
    if isinstance(size, int) and size > 0:
        return size
    if isinstance(size, str) and re.fullmatch(r"0*[1-9]\d* ?[KMGT]B", size.strip(), re.IGNORECASE):
        return size
    raise ValueError(f"max_shard_size is {size!r}, expected bytes or a whole number with KB, MB, GB or TB, such as 5GB")
