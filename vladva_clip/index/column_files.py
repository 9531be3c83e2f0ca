"""The arrays of an index from the other files that `vladva embed` writes: safetensors and Parquet.

They come out as those of the `.npz` file do. Rows of a Parquet file that say an error have no features: they are left
out.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vladva_clip.index.npz_arrays import check
from vladva_clip.storage import json_files


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file by name.

    Raises:
        ValueError: a damaged file, or one without the arrays of an index.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            arrays["made_by"] = np.array((file.metadata() or {})["made_by"])
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    kinds = arrays["kinds"]
    if kinds.dtype != np.uint32 or kinds.ndim != 2 or kinds.shape[1] != 5:
        raise ValueError(f"kinds are {kinds.dtype} {kinds.shape}, expected uint32 (rows, 5)")
    arrays["kinds"] = kinds.view("<U5")[:, 0] if len(kinds) else np.empty(0, "<U5")
    check(arrays)
    return arrays


def read_parquet(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a Parquet file as arrays by name.

    Raises:
        ValueError: a damaged file, or one without the columns of an index.
    """
    import pyarrow
    from pyarrow import compute, parquet

    try:
        table = parquet.read_table(path, page_checksum_verification=True)
        metadata = table.schema.metadata or {}
        table = table.filter(compute.is_null(table["error"]))
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
    made_by = metadata[b"made_by"].decode()
    texts = (table[key].to_pylist() for key in ("name", "name_bytes"))
    names = [_name(text, raw) for text, raw in zip(*texts, strict=True)]
    arrays = {
        "features": _features(table["features"]),
        "kinds": np.array(table["kind"].to_pylist(), "<U5"),
        "names": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "made_by": np.array(made_by),
        "sizes": _numbers(table["size"]),
        "times": _numbers(table["time"].cast(pyarrow.int64())),
    }
    if b"ranges" in metadata:
        arrays["ranges"] = np.array(json_files.parse(metadata[b"ranges"], json_files.RECORDS), np.float32)
    check(arrays)
    return arrays


def _name(text: str, raw: bytes | None) -> str:
    """A name as Python has it: bytes that are not UTF-8 are surrogate escapes."""
    return text if raw is None else os.fsdecode(raw)


def _numbers(column: Any) -> np.ndarray:
    """Whole numbers `(N,)`, -1 for none."""
    return np.asarray(column.fill_null(-1).to_numpy(), np.int64)


def _features(column: Any) -> np.ndarray:
    """A column of lists of equal length as an array `(N, width)`."""
    lists = column.combine_chunks()
    width = getattr(lists.type, "list_size", 0)
    if not width:
        raise ValueError(f"features are {lists.type}, expected lists of equal length")
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), width)
