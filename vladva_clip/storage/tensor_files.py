"""Read the header of a safetensors file and check it against the file's size, before any tensor takes memory.

Format: https://huggingface.co/docs/safetensors/index#format. The tensors themselves are read by safetensors.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vladva_clip.storage import json_files

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2}
SIZES |= {"U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}  # bytes of an element
MAX_RANK = 8  # dimensions
_LENGTH = 8  # bytes that state the length of the header, at the start


@dataclass(frozen=True)
class TensorHeader:
    """A tensor in a file: its dtype in safetensors' spelling, such as "F32", and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """The tensor's size in bytes."""
        return math.prod(self.shape) * SIZES[self.dtype]


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Return the tensors that a safetensors file holds, by name.

    Raises:
        ValueError: no such file, not a safetensors file, a header beyond the limits of `json_files`, unknown dtypes, or
            tensors that overlap, leave gaps or don't fill the file exactly.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing from {path.parent}")
    try:
        data, num_bytes = _read(path)
        return _checked(data, num_bytes)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}): corrupted or cut; get it again"
        ) from error


def _read(path: Path) -> tuple[dict[str, Any], int]:
    """The parsed header, and the number of bytes behind it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH), "little")
        if size < _LENGTH or length > size - _LENGTH:
            raise ValueError(f"its {size} bytes can't hold the header of {length} bytes that it states")
        if length > json_files.MAX_BYTES:
            raise ValueError(f"its header has {length} bytes, {json_files.MAX_BYTES} at most are read")
        text = file.read(length)
    if not text.startswith(b"{"):  # the format requires it, so a byte order mark is refused too
        raise ValueError("its header is not an object")
    return json_files.parse(text), size - _LENGTH - length


def _checked(data: dict[str, Any], num_bytes: int) -> dict[str, TensorHeader]:
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is not an object of strings")
    entries = {name: _entry(name, entry) for name, entry in data.items()}
    place = 0
    for name, (tensor, begin, end) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if begin != place or end - begin != tensor.num_bytes:
            raise ValueError(
                f"{name!r:.80} is {tensor.dtype} of {tensor.shape}, {tensor.num_bytes} bytes from {place} on, but "
                f"its offsets are {begin} and {end}"
            )
        place = end
    if place != num_bytes:
        raise ValueError(f"its tensors take {place} bytes, but the file has {num_bytes}")
    return {name: tensor for name, (tensor, _, _) in entries.items()}


def _entry(name: str, entry: Any) -> tuple[TensorHeader, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r:.80} has no dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise ValueError(f"{name!r:.80} has the unknown dtype {dtype!r:.40}")
    if not _are_sizes(shape) or len(shape) > MAX_RANK:
        raise ValueError(f"{name!r:.80} has the shape {shape!r:.80}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name!r:.80} has the offsets {offsets!r:.80}")
    return TensorHeader(dtype, tuple(shape)), *offsets


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
