"""An adapter's directory: its config and tensors, read and written strictly, without the model object."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from vladva_clip import __version__
from vladva_clip.storage import allowed_files, disk, file_locks, whole
from vladva_clip.storage.config import HUB, LOCAL, BaseConfig, VladvaConfig, read_json
from vladva_clip.storage.lora_shapes import check_shapes
from vladva_clip.storage.tensor_files import TensorHeader, read_header

CONFIG, SOFT_PROMPT = "vladva_config.json", "soft_prompt.safetensors"
LORA_CONFIG, LORA = "adapter_config.json", "adapter_model.safetensors"  # PEFT's own names
OPEN_CLIP_CONFIG, MARKER = "open_clip_config.json", "vladva_clip"
FILES = (CONFIG, SOFT_PROMPT, LORA_CONFIG, LORA, OPEN_CLIP_CONFIG)  # the files that are read
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # allowed in an adapter's tensors
_OTHER_DTYPES = {"F64": "float64", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"}
_OTHER_DTYPES |= {"BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
MAX_SOFT_PROMPT = 1 << 25  # bytes; 1,024 vectors of width 8,192 in float32
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_BASE_ID = re.compile(rf"{_NAME}(?:/{_NAME})?")  # a model's name, or a Hub id
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter as data.

    config: with the soft slot counts and the base's fingerprint filled in. soft_prompt: "image" and "text", each
    `(num_soft_tokens, D)`. lora_config and lora: PEFT's own config and tensors; None and empty without a LoRA.
    """

    config: VladvaConfig
    soft_prompt: dict[str, torch.Tensor]
    lora_config: dict[str, Any] | None = None
    lora: dict[str, torch.Tensor] = field(default_factory=dict)


Fits = Callable[[dict[str, Any], dict[str, tuple[int, ...]]], None]


def read(directory: Path | str, fits: Fits | None = None, config: VladvaConfig | None = None) -> StoredAdapter:
    """Read and check an adapter directory. The sizes that its files state are checked before memory is allocated.

    Args:
        directory: the adapter's directory.
        fits: called with the content of adapter_config.json and the shapes of the LoRA's tensors by name, before any
            tensor is read; it raises a ValueError if the LoRA doesn't fit the base.
        config: what `read_config` returned; None reads it here.

    Raises:
        ValueError: a file is missing, corrupted, of the wrong shape or dtype, of a refused kind (a pickle, a program,
            an archive) or a link out of the directory; or `fits` raised.
    """
    directory = Path(directory)
    if config is None:
        config = read_config(directory)
    else:  # read a while ago: the base may have been downloaded in between
        allowed_files.check(directory, FILES)
    soft_prompt = _read_soft_prompt(directory / SOFT_PROMPT, config)
    has_config, has_tensors = (directory / LORA_CONFIG).exists(), (directory / LORA).exists()
    if has_config != has_tensors:
        missing = LORA if has_config else LORA_CONFIG
        raise ValueError(f"{missing} is missing from {directory}; an adapter has either both LoRA files or none")
    if not has_config:
        return StoredAdapter(config, soft_prompt)
    lora_config = read_json(directory / LORA_CONFIG)
    return StoredAdapter(config, soft_prompt, lora_config, _read_lora(directory / LORA, lora_config, config, fits))


def read_config(directory: Path) -> VladvaConfig:
    """Read an adapter's config without its tensors.

    Raises:
        ValueError: the file is missing, not JSON or malformed; the directory has a refused kind of file or a link out
            of it; the base's id is invalid or a path that contains '..'.
    """
    allowed_files.check(directory, FILES)
    config = VladvaConfig.from_dict(read_json(directory / CONFIG))
    _check_base(config.base, directory / CONFIG)
    return config


def write(directory: Path | str, adapter: StoredAdapter, open_clip_config: dict[str, Any], extras: Any = None) -> None:
    """Write an adapter directory: everything into a scratch directory first, then renamed into place, file by file.

    An interruption leaves the old adapter or the new one, or (between two renames) a directory that does not load.

    Args:
        directory: created if missing; other files in it are left alone.
        adapter: the adapter to write.
        open_clip_config: `model_cfg` and `preprocess_cfg`. Our marker key is added to both it and its `model_cfg`:
            because of the latter, an open_clip without our plugin refuses the file instead of building a CLIP with
            random weights.
        extras: called with the scratch directory to add further files (tokenizer).

    Raises:
        OSError: the disk is full or not writable; an earlier adapter in the directory is unchanged.
    """
    directory = Path(directory)
    with disk.writing(directory), whole.scratch(directory / "adapter", named=directory) as scratch:
        _fill(scratch, adapter, open_clip_config, extras)
        whole.flush(scratch)
        with file_locks.held(directory / ".saving.lock", wait=True):  # of two that save at once, the later one wins
            _put_in_place(scratch, directory)
        whole.flush_folder(directory)


def _fill(scratch: Path, adapter: StoredAdapter, open_clip_config: dict[str, Any], extras: Any) -> None:
    _write_json(scratch / CONFIG, adapter.config.replace(written_by=__version__).to_dict())
    _write_json(scratch / OPEN_CLIP_CONFIG, _marked(open_clip_config, adapter.config))
    _write_tensors(scratch / SOFT_PROMPT, adapter.soft_prompt)
    if adapter.lora_config is not None:
        _write_json(scratch / LORA_CONFIG, adapter.lora_config)
        _write_tensors(scratch / LORA, adapter.lora)
    if extras is not None:
        extras(scratch)


def _put_in_place(scratch: Path, directory: Path) -> None:
    replaced = {path.name: path.is_dir() for path in scratch.iterdir()}
    for name, is_folder in {LORA_CONFIG: False, LORA: False, **replaced}.items():
        found = directory / name
        if found.exists() and found.is_dir() != is_folder:  # checked while the earlier adapter is still whole
            kinds = ("file", "folder") if is_folder else ("folder", "file")
            raise FileExistsError(errno.EEXIST, f"a {kinds[0]} is in the way of the new {kinds[1]}", str(found))
    for name in (
        CONFIG,
        LORA_CONFIG,
        LORA,
    ):  # of an earlier save; the config first, so that no mixture of old and new loads
        (directory / name).unlink(missing_ok=True)
    # the soft prompt first, so that a later save recognizes an interrupted one; the config last: it makes the rest load
    for path in sorted(scratch.iterdir(), key=lambda path: (path.name == CONFIG, path.name != SOFT_PROMPT)):
        if path.is_dir():  # such as additional_chat_templates/; a folder can't be renamed over an existing one
            shutil.rmtree(directory / path.name, ignore_errors=True)
        os.replace(path, directory / path.name)


def _marked(open_clip_config: dict[str, Any], config: VladvaConfig) -> dict[str, Any]:
    marker = {MARKER: {"format_version": config.format_version}}
    return {**open_clip_config, "model_cfg": {**open_clip_config.get("model_cfg", {}), **marker}, **marker}


def _check_base(base: BaseConfig, path: Path) -> None:
    place = base.id.removeprefix(LOCAL)
    if base.id.startswith(LOCAL):
        upwards = ".." in PurePosixPath(place.replace("\\", "/")).parts
        good = place and place.isprintable() and "`" not in place and not upwards
    else:
        good = _BASE_ID.fullmatch(base.id.removeprefix(HUB).partition("@")[0])
    if not good:
        raise ValueError(
            f"{path}: the base is {base.id!r:.120}, expected a model's name, a Hub id ORG/REPO or {LOCAL}PATH without "
            "'..'"
        )
    for revision in (base.revision, base.id.partition("@")[2] if base.id.startswith(HUB) else None):
        if revision and not (_REVISION.fullmatch(revision) and ".." not in revision):
            raise ValueError(f"{path}: the base's revision is {revision!r:.80}, expected a branch, tag or commit")


def _read_soft_prompt(path: Path, config: VladvaConfig) -> dict[str, torch.Tensor]:
    header = read_header(path)
    counts = {"image": config.prompt.num_image_soft_tokens, "text": config.prompt.num_text_soft_tokens}
    if set(header) != set(counts):
        raise ValueError(f"{path} contains {str(sorted(header)):.200}, expected exactly {sorted(counts)}")
    check_dtypes(header, path)
    for side, count in counts.items():
        if header[side].num_bytes > MAX_SOFT_PROMPT:
            raise ValueError(f"{path}: {side!r} has {header[side].num_bytes} bytes, expected at most {MAX_SOFT_PROMPT}")
        # behind a projection features have another width than soft prompts, which only the base knows
        width = header[side].shape[-1] if config.encoding.projection else config.embed_dim
        if count is None or header[side].shape != (count, width):
            raise ValueError(
                f"{path}: {side!r} has shape {header[side].shape}, expected {(count, config.embed_dim)} by config"
            )
    return read_tensors(path)


def _read_lora(
    path: Path, lora_config: dict[str, Any], config: VladvaConfig, fits: Fits | None
) -> dict[str, torch.Tensor]:
    header = read_header(path)
    check_dtypes(header, path)
    shapes = {name: tensor.shape for name, tensor in header.items()}
    check_shapes(shapes, lora_config, config)
    if fits is not None:
        fits(lora_config, shapes)
    return read_tensors(path)


def check_dtypes(header: dict[str, TensorHeader], path: Path) -> None:
    """Raise ValueError for a tensor that is not of floats; `path` is the file's, for the error."""
    for name, tensor in header.items():
        if tensor.dtype not in DTYPES:
            found = f"torch.{_OTHER_DTYPES[tensor.dtype]}" if tensor.dtype in _OTHER_DTYPES else tensor.dtype
            raise ValueError(f"{path}: {name!r:.200} is {found}, expected float32, bfloat16 or float16")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file; raises ValueError if it can't be read, or a value is not finite."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}): corrupted or truncated; get it again"
        ) from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: {name!r:.200} contains NaN or infinity")
    return tensors


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    # not save_file, whose files only their owner can read, whatever the umask
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))
