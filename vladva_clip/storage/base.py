"""A base's directory, opened once: each file is read when first needed, and all callers share the content."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vladva_clip.storage import json_files, plain_files, weights
from vladva_clip.storage.allowed_files import refuse_links_out
from vladva_clip.storage.config import read_json
from vladva_clip.storage.lora_files import LoraFiles
from vladva_clip.storage.tensor_files import TensorHeader

CONFIG = "config.json"


@dataclass(frozen=True)
class Admits:
    """What a published embedder's files may say besides what a bare LVLM's may.

    Attributes:
        family: transformers' model_type of the architecture.
        model_type: another value that config.json has in its place; None if it has the family's own.
        auto_map: whether the JSON files may name code of their own, which is never run.
    """

    family: str
    model_type: str | None = None
    auto_map: bool = False

    def applied(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the content of a JSON file as that of a bare LVLM would be."""
        data = {key: value for key, value in data.items() if not (self.auto_map and key == "auto_map")}
        if self.model_type is not None and data.get("model_type") == self.model_type:
            data["model_type"] = self.family
        return data


class BaseFiles:
    """The files of a base LVLM, or of a tokenizer saved by itself.

    Nothing is read until it is asked for, and no file is read twice, so the content that was checked is the content
    that is used. To see files that have changed since, open the directory again. Callers share what is returned and
    must not modify it. Files that link to places outside the directory are refused (see `allowed_files`).

    Args:
        directory: the base's; it does not have to exist yet.
        admits: what the profile of a published embedder accepts of them.
        lora: where the LoRA lies that belongs to the base as published, and is merged on loading; None without one.
    """

    def __init__(self, directory: Path | str, admits: Admits | None = None, lora: Path | None = None) -> None:
        self.directory, self.admits = Path(directory), admits
        self.lora = LoraFiles(lora) if lora else None
        self._objects: dict[tuple[str, json_files.Limits], dict[str, Any]] = {}
        self._contents: dict[tuple[str, int], bytes] = {}

    def path(self, name: str) -> Path:
        """Return where a file of that name is or would be."""
        return self.directory / name

    def has(self, name: str) -> bool:
        """Return whether there is a file of that name; a link to a file counts."""
        return self.path(name).is_file()

    def json(self, name: str, limits: json_files.Limits = json_files.USUAL) -> dict[str, Any]:
        """Return the object in a JSON file.

        Raises:
            ValueError: the file is missing, links to a place outside, exceeds the limits, or holds no JSON object.
        """
        if (name, limits) not in self._objects:
            refuse_links_out(self.directory, (name,))
            data = read_json(self.path(name), limits)
            self._objects[name, limits] = self.admits.applied(data) if self.admits else data
        return self._objects[name, limits]

    def content(self, name: str, max_bytes: int) -> bytes:
        """Return the bytes of a regular file.

        Raises:
            ValueError: the file is missing, can't be read, links to a place outside, or has more than `max_bytes`.
        """
        if (name, max_bytes) not in self._contents:
            refuse_links_out(self.directory, (name,))
            self._contents[name, max_bytes] = _read(self.path(name), max_bytes)
        return self._contents[name, max_bytes]

    @property
    def config(self) -> dict[str, Any]:
        """The whole content of config.json; `admission.base_config.read_base_config` returns the keys we accept.

        Raises:
            ValueError: as `json`.
        """
        return self.json(CONFIG)

    @functools.cached_property
    def headers(self) -> dict[Path, dict[str, TensorHeader]]:
        """The headers of all weight files, by file and tensor name.

        Raises:
            ValueError: no safetensors, or files that are corrupted or incomplete (see `weights.headers`).
        """
        weights.refuse_detours(self.directory, self.config)
        refuse_links_out(self.directory, (weights.SINGLE, weights.INDEX))
        has_index = not self.has(weights.SINGLE) and self.has(weights.INDEX)  # transformers prefers the single file
        return weights.headers(self.directory, self.json(weights.INDEX) if has_index else None)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all stored tensors, by name.

        Raises:
            ValueError: as `headers`.
        """
        return {name: tensor.shape for header in self.headers.values() for name, tensor in header.items()}

    @functools.cached_property
    def fingerprint(self) -> str:
        """The base's identity: "sha256:" and a digest of its config and of three tensors (see `weights.fingerprint`).

        A published LoRA counts with all its tensors.

        Raises:
            ValueError: as `headers`, or the weights hold no language model that we know; as `LoraFiles.tensors`.
        """
        own = weights.fingerprint(self.directory, self.config, self.headers)
        return self.lora.fingerprint(own) if self.lora else own


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        return plain_files.read_bytes(path, max_bytes)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    except plain_files.TooManyBytesError as error:
        raise ValueError(f"{path} has {error}, too large for this file of a base: get it again") from error
