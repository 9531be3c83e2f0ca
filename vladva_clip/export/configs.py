"""The export's config.json and generation_config.json: the base's own, with the export's changes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from vladva_clip.encoder.admission.base_config import GENERATION, generation_config, read_base_config
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import VladvaConfig

_DTYPE_KEYS = ("dtype", "torch_dtype")  # of transformers 5 and 4; other readers know only one of them


def write(
    directory: Path, base: BaseFiles, backbone: Backbone, config: VladvaConfig, rows: int, suppressed: Iterable[int]
) -> None:
    """Write both files into a directory.

    Args:
        directory: the export's directory.
        base: the base's files.
        backbone: the base's architecture, on any device.
        config: of the export.
        rows: rows of the exported embedding.
        suppressed: the slots' ids, which generation must never choose: under a tied head they are possible outputs.
    """
    stated = read_base_config(base) | backbone.pinned_config(config.image.size)
    _write(directory / "config.json", _config(stated, type(backbone.lvlm).__name__, config.dtype, rows))
    _write(directory / GENERATION, _generation(base, backbone.lvlm, set(suppressed)))


def _config(config: dict[str, Any], architecture: str, dtype: str, rows: int) -> dict[str, Any]:
    config = {"architectures": [architecture], **config, **dict.fromkeys(_DTYPE_KEYS, dtype)}
    for name in ("text_config", "vision_config"):
        part = config.get(name) or {}
        config |= {name: {**part, **{key: dtype for key in _DTYPE_KEYS if key in part}}} if part else {}
    if "text_config" in config:
        config["text_config"] = {**config["text_config"], "vocab_size": rows}
    if "vocab_size" in config or "text_config" not in config:  # Qwen2-VL's published config is flat
        config["vocab_size"] = rows
    return config


def _generation(base: BaseFiles, lvlm: nn.Module, suppressed: set[int]) -> dict[str, Any]:
    """Return the base's settings, or without its file those that transformers derives from the model's config."""
    data = generation_config(base) if base.has(GENERATION) else lvlm.generation_config.to_diff_dict()
    data.pop("_from_model_config", None)  # otherwise transformers may derive them again, without our additions
    return {**data, "suppress_tokens": sorted(suppressed | set(data.get("suppress_tokens") or []))}


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
