"""Copies of tiny bases that state how they are read, as published embedders' directories do."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.edits import edit_json
from vladva_clip.encoder.describe import describe_base
from vladva_clip.sources.locate import BASE_FILE, from_name
from vladva_clip.storage.config import VladvaConfig
from vladva_clip.storage.encoding_config import EncodingConfig

HEAD = "lm_head.weight"
WEIGHTS = "model.safetensors"


def config_of(base: Path, prompt: dict[str, Any] | None = None, **encoding: Any) -> VladvaConfig:
    """The config of a tiny base with some keys of its prompt and its encoding changed."""
    config = describe_base(from_name(str(base)))
    return config.replace(encoding=EncodingConfig(**encoding), prompt=replace(config.prompt, **(prompt or {})))


def copy(base: Path, directory: Path, prompt: dict[str, Any] | None = None, **encoding: Any) -> Path:
    """Copy a tiny base, with a `vladva_base.json` that says how it is read."""
    shutil.copytree(base, directory)
    (directory / BASE_FILE).write_text(json.dumps(config_of(base, prompt, **encoding).to_dict()))
    return directory


def untie(directory: Path) -> Path:
    """Give a tiny Qwen2-VL a head of its own; in place."""
    edit_json(directory / "config.json", tie_word_embeddings=False)
    tensors = load_file(directory / WEIGHTS)
    width = next(tensor for name, tensor in tensors.items() if name.endswith("embed_tokens.weight"))
    head = 0.2 * torch.randn(width.shape, generator=torch.Generator().manual_seed(7))
    save_file({**tensors, HEAD: head}, directory / WEIGHTS, metadata={"format": "pt"})
    return directory


def without(directory: Path, *endings: str) -> Path:
    """Take tensors out of a tiny base's weights, by the ends of their names; in place."""
    tensors = load_file(directory / WEIGHTS)
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(endings)}
    assert len(kept) == len(tensors) - len(endings)
    save_file(kept, directory / WEIGHTS, metadata={"format": "pt"})
    return directory
