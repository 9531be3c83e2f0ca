"""The LoRA that a published embedder consists of: PEFT's own two files, in a directory without an LVLM's weights."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from vladva_clip.storage import adapter_files
from vladva_clip.storage.adapter_files import LORA, LORA_CONFIG
from vladva_clip.storage.allowed_files import PICKLES, refuse_links_out
from vladva_clip.storage.config import read_json
from vladva_clip.storage.tensor_files import read_header

# keys of adapter_config.json that say where and by what the LoRA was made
_VOLATILE = ("base_model_name_or_path", "revision", "peft_version", "inference_mode", "auto_mapping", "task_type")


class LoraFiles:
    """The two files. Nothing is read until it is asked for; other files of the directory are ignored.

    Args:
        directory: where they are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The content of adapter_config.json.

        Raises:
            ValueError: the file is missing, no JSON object, or a link out of the directory.
        """
        refuse_links_out(self.directory, (LORA_CONFIG,))
        return read_json(self.directory / LORA_CONFIG)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors, by their stored names; no tensor is read.

        Raises:
            ValueError: the file is missing (a pickle in its place is named), corrupted, a link out of the directory, or
                holds tensors that are not of floats.
        """
        path = self.directory / LORA
        refuse_links_out(self.directory, (LORA,))
        if not path.is_file():
            raise ValueError(missing(self.directory, str(self.directory)))
        header = read_header(path)
        adapter_files.check_dtypes(header, path)
        return {name: tensor.shape for name, tensor in header.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by their stored names; raises ValueError as `shapes`, and for NaN or infinity."""
        _ = self.shapes  # checks the file before memory is allocated for it
        return adapter_files.read_tensors(self.directory / LORA)

    def fingerprint(self, base: str) -> str:
        """Return the identity of a base with this LoRA: "sha256:" and a digest of both.

        Args:
            base: the fingerprint of the base alone.
        """
        settings = {key: value for key, value in self.config.items() if key not in _VOLATILE}
        digest = hashlib.sha256(f"{base}\n{json.dumps(settings, sort_keys=True)}".encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy())
        return f"sha256:{digest.hexdigest()}"


def missing(directory: Path, name: str) -> str:
    """Explain that a directory, or the Hub repository of that name, has no tensors of a LoRA that can be read."""
    found = sorted(path.name for path in directory.glob("adapter_model*") if path.suffix in PICKLES)
    pickled = f"found {', '.join(found)}" if found else "if it has adapter_model.bin instead, that is"
    return (
        f"{name} has no {LORA}: {pickled}, a pickle, which can run code and is not read. Save it again with PEFT (load "
        "it where you trust it, then save_pretrained) and give the directory as local-dir:PATH"
    )
