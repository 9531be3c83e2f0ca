"""Files that we write and read again later, sealed with a sha256 over their bytes and the name they were written for.

Reading detects a flipped bit, a truncated or replaced file, and a file that was renamed over another. It also detects
anything that isn't a regular file, without blocking on it.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from vladva_clip.storage import json_files, plain_files

SEAL = "sha256"  # the key that holds the digest
_BLANK = b"0" * 64  # stands in for the digest while it is computed
_PLACE = re.compile(rb'"sha256": ?"([0-9a-f]{64})"')
_HEADER = 1 << 16  # largest size in bytes of everything but the tensors and the details


class DamagedError(ValueError):
    """A file that doesn't hold what was written under its name. The message gives the reason, not the path."""


def tensors(name: str, content: dict[str, torch.Tensor], details: dict[str, str] | None = None) -> bytes:
    """Return a sealed safetensors file.

    Args:
        name: what the file is for. It is not stored in the file; reading needs the same name.
        content: tensors by name, on any device.
        details: texts to store with them.
    """
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in content.items()}
    return _sealed(name, save(plain, {**(details or {}), SEAL: _BLANK.decode()}))


def read_tensors(
    path: Path, name: str, shapes: dict[str, tuple[int, ...]], details_bytes: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """Read a file made by `tensors`.

    Args:
        path: the file.
        name: the name it was written for.
        shapes: the expected shapes by name, all float32; -1 stands for any size up to 65536.
        details_bytes: largest size of the details, beyond a few short texts.

    Returns:
        The tensors and the details, or None if there is no file.

    Raises:
        DamagedError: the file is anything else.
    """
    sizes = [torch.Size(1 << 16 if size < 0 else size for size in shape).numel() for shape in shapes.values()]
    content = _read(path, name, 4 * sum(sizes) + _HEADER + details_bytes)
    if content is None:
        return None
    try:
        found, length = load(content), int.from_bytes(content[:8], "little")
        details = json_files.parse(content[8 : 8 + length])["__metadata__"]
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise DamagedError(f"not a safetensors file ({error})") from error
    _check_shapes(found, shapes)
    return found, details


def plain(name: str, data: dict[str, Any]) -> bytes:
    """Return a sealed JSON file that holds an object."""
    return _sealed(name, json.dumps({SEAL: _BLANK.decode(), **data}, separators=(",", ":")).encode())


def read_plain(path: Path, name: str, max_bytes: int) -> dict[str, Any] | None:
    """Read a file made by `plain`, of at most `max_bytes` bytes; None if there is no file.

    Raises:
        DamagedError: the file is anything else.
    """
    content = _read(path, name, max_bytes)
    return None if content is None else json_files.parse(content, json_files.RECORDS)


def _sealed(name: str, content: bytes) -> bytes:
    start, end = _find(content)
    return content[:start] + _digest(name, content, start, end) + content[end:]


def _read(path: Path, name: str, max_bytes: int) -> bytes | None:
    """Read a file and check its seal."""
    try:
        content = plain_files.read_bytes(path, max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DamagedError(f"it can't be read: {plain_files.said(error)}") from error
    start, end = _find(content)
    if content[start:end] != _digest(name, content, start, end):
        raise DamagedError("its content is not what was written for this name: its sha256 differs")
    return content


def _find(content: bytes) -> tuple[int, int]:
    found = _PLACE.search(content)
    if found is None:
        raise DamagedError("it has no sha256: an older release wrote it, or something else")
    return found.span(1)


def _digest(name: str, content: bytes, start: int, end: int) -> bytes:
    digest = hashlib.sha256(f"{len(name)} {name}".encode(errors="surrogateescape"))
    view = memoryview(content)
    for part in (view[:start], _BLANK, view[end:]):
        digest.update(part)
    return digest.hexdigest().encode()


def _check_shapes(found: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        tensor = found.get(name)
        fits = tensor is not None and tensor.ndim == len(shape) and tensor.dtype == torch.float32
        if not fits or any(size not in (-1, there) for size, there in zip(shape, tensor.shape, strict=True)):
            there = "nothing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
            raise DamagedError(f"{name} is {there}, expected float32 {shape}")
