"""The safetensors of a base: which files there are, what they hold, and the base's fingerprint.

No computation is done with the tensors. `base.BaseFiles` reads the files through this module, each once.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vladva_clip.storage.allowed_files import PICKLES, refuse_links_out
from vladva_clip.storage.tensor_files import TensorHeader, read_header

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
# the LLM's own tensors, under the names on the Hub and those that transformers 5 writes; never the vision tower's
_K_PROJ = re.compile(
    r"^(?:language_model\.|model\.)(?:model\.|language_model\.|text_model\.)?layers\.(\d+)\.self_attn\.k_proj\.weight$"
)
_NORM = re.compile(r"^(?:language_model\.|model\.)(?:model\.|language_model\.|text_model\.)?norm\.weight$")
MAX_SHARDS, MAX_TENSORS = 256, 1 << 15
_FLOATS = ("F32", "BF16", "F16")
_VOLATILE = ("transformers_version", "_name_or_path", "_commit_hash")  # keys of config.json that say who wrote it

Headers = dict[Path, dict[str, TensorHeader]]


def refuse_detours(directory: Path, config: dict[str, Any]) -> None:
    """Refuse anything that would make transformers load other weights than those beside config.json.

    Args:
        directory: of the base.
        config: the content of its config.json.

    Raises:
        ValueError: there is an adapter_config.json, or config.json names other weights.
    """
    if (directory / "adapter_config.json").exists():
        raise ValueError(
            f"{directory} holds adapter_config.json: transformers would load the base that it names instead. Remove "
            "the file, or load the directory as an adapter, with its vladva_config.json"
        )
    if named := config.get("transformers_weights"):
        raise ValueError(f"config.json in {directory} names other weights ({named!r}); expected {SINGLE} or {INDEX}")


def headers(directory: Path, index: dict[str, Any] | None) -> Headers:
    """Read the headers of a base's weight files.

    Args:
        directory: of the base.
        index: the content of its index; None when the weights are in a single file.

    Raises:
        ValueError: no safetensors (pickles are refused by name), a file of the index is missing, a corrupted file, a
            tensor in two files, or more than `MAX_SHARDS` files or `MAX_TENSORS` tensors.
    """
    found: Headers = {}
    seen: set[str] = set()
    for path in _single(directory) if index is None else _shards(directory, index):
        if not path.is_file():
            raise ValueError(f"{path.name} is missing from {directory}, though its index names it: get the files again")
        header = _checked(path, read_header(path))
        if twice := sorted(seen & set(header)):
            raise ValueError(f"{path} holds {twice[0]:.200}, and so does another file beside it: get them again")
        seen |= set(header)
        if len(seen) > MAX_TENSORS:
            raise ValueError(f"the weight files in {directory} hold more than {MAX_TENSORS} tensors")
        found[path] = header
    return found


def fingerprint(directory: Path, config: dict[str, Any], headers: Headers) -> str:
    """Return what identifies a base: a sha256 of its config, final norm and first and last k_proj as stored.

    Tensor names don't count, so the Hub's older LLaVA names and today's give the same fingerprint; neither do the keys
    of config.json that record who wrote it.

    Args:
        directory: of the base, for errors.
        config: the content of its config.json.
        headers: of its weight files.

    Raises:
        ValueError: an unreadable file, or weights without a language model's layers.
    """
    digest = hashlib.sha256(json.dumps(_lasting(config), sort_keys=True).encode())
    marked = _marked_tensors(directory, headers)
    stored: dict[str, bytes] = {}
    for path in dict.fromkeys(path for _, path in marked):
        stored |= _read_tensors(path, {key for key, place in marked if place == path})
    for key, _ in marked:
        digest.update(stored[key])
    return f"sha256:{digest.hexdigest()}"


def _read_tensors(path: Path, keys: Iterable[str]) -> dict[str, bytes]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key).contiguous().view(torch.uint8).numpy().tobytes() for key in keys}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): get it again") from error


def _lasting(value: Any) -> Any:
    """The part of a config that has a meaning for the model."""
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key not in _VOLATILE}
    return value


def _single(directory: Path) -> list[Path]:
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    found = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    reason = f"found {', '.join(found)}, which are pickles and can run code: refused. " if found else ""
    raise ValueError(
        f"no {SINGLE} or {INDEX} in {directory}. {reason}Only safetensors are read; convert the weights first"
    )


def _shards(directory: Path, index: dict[str, Any]) -> list[Path]:
    where = index.get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise ValueError(f"{directory / INDEX} has no weight_map from tensors to files: get it again")
    names = sorted(set(where.values()))
    if bad := [name for name in names if not _is_plain(name)]:
        raise ValueError(f"{directory / INDEX} points outside its directory: {bad[0]!r:.120}")
    if len(names) > MAX_SHARDS:
        raise ValueError(f"{directory / INDEX} names {len(names)} files, at most {MAX_SHARDS} are read")
    refuse_links_out(directory, names)
    return [directory / name for name in names]


def _is_plain(name: str) -> bool:
    """Whether a name in an index is that of a safetensors file in the same directory, on any system."""
    return bool(re.fullmatch(r"[^/\\:\0]+\.safetensors", name))


def _checked(path: Path, header: dict[str, TensorHeader]) -> dict[str, TensorHeader]:
    for name, tensor in header.items():
        if name.endswith((".weight", ".bias")) and tensor.dtype not in _FLOATS:  # a buffer may hold integers
            raise ValueError(
                f"{path}: {name:.200} is {tensor.dtype}, expected {', '.join(_FLOATS)}: quantized files are not read"
            )
    return header


def _marked_tensors(directory: Path, headers: Headers) -> list[tuple[str, Path]]:
    where = {key: path for path, header in headers.items() for key in header}
    layers = {int(match[1]): key for key in where if (match := _K_PROJ.match(key))}
    norms = [key for key in where if _NORM.match(key)]
    if not layers or not norms:
        raise ValueError(
            f"the weights in {directory} hold no language model that vladva_clip knows (LLaVA-1.5, Qwen2-VL and later)"
        )
    keys = [norms[0], layers[min(layers)], layers[max(layers)]]
    return [(key, where[key]) for key in keys]
