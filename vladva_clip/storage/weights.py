"""The safetensors of a base directory: complete, readable, fingerprinted. No tensor is computed with here."""

import functools
import hashlib
import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vladva_clip.storage.allowed_files import PICKLES, refuse_links_out
from vladva_clip.storage.config import read_json
from vladva_clip.storage.tensor_files import TensorHeader, read_header

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
# the LLM's own names, the ones on the Hub and the ones transformers 5 writes; the vision tower's never match
_K_PROJ = re.compile(
    r"^(?:language_model\.|model\.)(?:model\.|language_model\.)?layers\.(\d+)\.self_attn\.k_proj\.weight$"
)
_NORM = re.compile(r"^(?:language_model\.|model\.)(?:model\.|language_model\.)?norm\.weight$")
MAX_SHARDS, MAX_TENSORS = 256, 1 << 15
_FLOATS = ("F32", "BF16", "F16")
_VOLATILE = ("transformers_version", "_name_or_path", "_commit_hash")  # of config.json; they change without meaning


def shards(directory: Path) -> list[Path]:
    """Return the weight files of a base directory after a look at each header.

    Raises:
        ValueError: as `headers`.
    """
    return list(headers(directory))


def headers(directory: Path) -> dict[Path, dict[str, TensorHeader]]:
    """Return what a base's weight files say they hold, file by file.

    Raises:
        ValueError: no safetensors (pickles are refused by name), a shard of the index missing, a corrupted file, a
            tensor in two files, or more files and tensors than a base has.
    """
    found: dict[Path, dict[str, TensorHeader]] = {}
    seen: set[str] = set()
    for path in _listed(directory):
        if not path.is_file():
            raise ValueError(f"{path.name} is missing from {directory}, though its index names it: get the files again")
        header = _header(path)
        if twice := sorted(seen & set(header)):
            raise ValueError(f"{path} holds {twice[0]:.200}, which another file beside it holds too: get them again")
        seen |= set(header)
        if len(seen) > MAX_TENSORS:
            raise ValueError(f"the weight files in {directory} hold more than {MAX_TENSORS} tensors")
        found[path] = header
    return found


def fingerprint(directory: Path) -> str:
    """Return what tells one base from another: a sha256 over config, final norm and first and last k_proj as stored.

    Key names don't count, so the Hub's older LLaVA names and today's give the same fingerprint; nor do the keys of
    config.json that record who wrote it.

    Raises:
        ValueError: as `shards`, or weights without a language model's layers.
    """
    refuse_links_out(directory, ("config.json",))
    config = read_json(directory / "config.json")
    digest = hashlib.sha256(json.dumps(_settled(config), sort_keys=True).encode())
    for key, path in _marked_tensors(directory):
        digest.update(_bytes(path, key))
    return f"sha256:{digest.hexdigest()}"


def _bytes(path: Path, key: str) -> bytes:
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(key).contiguous().view(torch.uint8).numpy().tobytes()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): get it again") from error


def _settled(value):
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items() if key not in _VOLATILE}
    return value


def _listed(directory: Path) -> list[Path]:
    _refuse_detours(directory)
    refuse_links_out(directory, (SINGLE, INDEX))
    if (directory / SINGLE).is_file():  # the one that transformers reads when both are there
        return [directory / SINGLE]
    if (directory / INDEX).is_file():
        where = read_json(directory / INDEX).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
            raise ValueError(f"{directory / INDEX} has no weight_map from tensors to files: get it again")
        names = sorted(set(where.values()))
        if bad := [name for name in names if not _is_plain(name)]:
            raise ValueError(f"{directory / INDEX} points outside its directory: {bad[0]!r:.120}")
        if len(names) > MAX_SHARDS:
            raise ValueError(f"{directory / INDEX} names {len(names)} files, {MAX_SHARDS} at most are read")
        refuse_links_out(directory, names)
        return [directory / name for name in names]
    found = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    reason = f"found {', '.join(found)}, which are pickles and can run code: refused. " if found else ""
    raise ValueError(
        f"no {SINGLE} or {INDEX} in {directory}. {reason}Only safetensors are read; convert the weights first"
    )


def _refuse_detours(directory: Path) -> None:
    """Refuse what would make transformers load other weights than the ones beside config.json."""
    refuse_links_out(directory, ("config.json",))
    if (directory / "adapter_config.json").exists():
        raise ValueError(
            f"{directory} holds adapter_config.json: transformers would load the base that it names instead. Take the "
            "file away, or load the directory as an adapter, with its vladva_config.json"
        )
    if named := read_json(directory / "config.json").get("transformers_weights"):
        raise ValueError(f"config.json in {directory} names other weights ({named!r}); expected {SINGLE} or {INDEX}")


def _is_plain(name: str) -> bool:
    """Whether a name of an index is a safetensors file's in the same directory, on any system."""
    return bool(re.fullmatch(r"[^/\\:\0]+\.safetensors", name))


def shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors in a base's weight files, by name.

    Raises:
        ValueError: as `headers`.
    """
    return {name: tensor.shape for header in headers(directory).values() for name, tensor in header.items()}


def _header(path: Path) -> dict[str, TensorHeader]:
    status = path.stat()
    return _read_once(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2 * MAX_SHARDS)
def _read_once(path: Path, *_: int) -> dict[str, TensorHeader]:
    """A header, which several checks look into; read again when the file is another one."""
    header = read_header(path)
    for name, tensor in header.items():
        if name.endswith((".weight", ".bias")) and tensor.dtype not in _FLOATS:  # a buffer may hold integers
            raise ValueError(
                f"{path}: {name:.200} is {tensor.dtype}, expected {', '.join(_FLOATS)}: quantized files are not read"
            )
    return header


def _marked_tensors(directory: Path) -> list[tuple[str, Path]]:
    where = {key: path for path, header in headers(directory).items() for key in header}
    layers = {int(match[1]): key for key in where if (match := _K_PROJ.match(key))}
    norms = [key for key in where if _NORM.match(key)]
    if not layers or not norms:
        raise ValueError(
            f"the weights in {directory} hold no language model that vladva_clip knows (LLaVA-1.5, Qwen2-VL)"
        )
    keys = [norms[0], layers[min(layers)], layers[max(layers)]]
    return [(key, where[key]) for key in keys]
