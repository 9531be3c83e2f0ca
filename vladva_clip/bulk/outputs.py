"""The files that a job can write: an index for NumPy, safetensors, or Parquet."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vladva_clip.bulk.coding import Coding
from vladva_clip.bulk.joining import Columns, Failures, copied
from vladva_clip.bulk.parts import Part
from vladva_clip.interface import extras

SUFFIXES = (".npz", ".safetensors", ".parquet")


def require_suffix(path: Path) -> None:
    """Refuse an output with another suffix.

    Raises:
        ValueError: names those that can be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} has the suffix {path.suffix!r}, expected {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        extras.require("pyarrow", purpose="Parquet")


def write(
    path: Path,
    suffix: str,
    parts: Iterable[Part],
    coding: Coding,
    made_by: dict[str, Any],
    failed: Failures,
    scratch: Path,
) -> int:
    """Write parts as one file.

    Args:
        path: its place.
        suffix: one of `SUFFIXES`, which says what kind of file it will be.
        parts: in the order of their rows.
        coding: how features are stored.
        made_by: the model, as an index states it, to which the coding is added.
        failed: gets the rows with an error; Parquet has them too, without features.
        scratch: an empty folder.

    Returns:
        The number of rows with features.
    """
    made_by = made_by | {"quantized": coding.precision}
    if suffix == ".parquet":
        return _parquet(path, parts, coding, made_by, failed)
    columns = Columns(scratch, coding)
    columns.collect(parts, failed)
    (_npz if suffix == ".npz" else _safetensors)(path, columns, made_by)
    return columns.count


def _arrays(columns: Columns) -> dict[str, tuple[str, tuple[int, ...]]]:
    """NumPy's type and the shape of each column."""
    texts = {"kinds": ("<U5", (columns.count,)), "names": ("|u1", (columns.sizes["names"],))}
    counted = {"sizes": ("<i8", (columns.count,)), "times": ("<i8", (columns.count,))}
    ranges = {} if columns.coding.ranges is None else {"ranges": ("<f4", columns.coding.ranges.shape)}
    return {"features": (columns.coding.dtype, (columns.count, columns.width)), **ranges, **texts, **counted}


def _npz(path: Path, columns: Columns, made_by: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, (kind, shape) in _arrays(columns).items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for some in copied(columns.path(name)):
                    file.write(some)
        with archive.open(zipfile.ZipInfo("made_by.npy"), "w") as file:
            np.lib.format.write_array(file, np.array(json.dumps(made_by)))


# a letter is a number of 32 bits
_SAFETENSORS = {"<f4": "F32", "|i1": "I8", "<U5": "U32", "|u1": "U8", "<i8": "I64"}


def _safetensors(path: Path, columns: Columns, made_by: dict[str, Any]) -> None:
    """Write the header by the format's rules, then the columns: the library wants all of them in memory."""
    header: dict[str, Any] = {"__metadata__": {"made_by": json.dumps(made_by)}}
    start = 0
    for name, (kind, shape) in _arrays(columns).items():
        end = start + columns.sizes[name]
        shape = (*shape, 5) if kind == "<U5" else shape
        header[name] = {"dtype": _SAFETENSORS[kind], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in _arrays(columns):
            file.writelines(copied(columns.path(name)))


def _parquet(path: Path, parts: Iterable[Part], coding: Coding, made_by: dict[str, Any], failed: Failures) -> int:
    import pyarrow
    import pyarrow.parquet

    metadata = {b"made_by": json.dumps(made_by).encode()}
    if coding.ranges is not None:
        metadata[b"ranges"] = json.dumps(coding.ranges.tolist()).encode()
    count, writer = 0, None
    try:
        for part in parts:
            table = _table(part, coding, metadata)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, write_page_checksum=True)
            writer.write_table(table)
            failed.add(row for row in part.rows if row.error is not None)
            count += sum(row.error is None for row in part.rows)
    finally:
        if writer:
            writer.close()
    return count


def _table(part: Part, coding: Coding, metadata: dict[bytes, bytes]) -> Any:
    """A part as a table: a name that is not UTF-8 is in `name_bytes`, and escaped in `name`."""
    import pyarrow

    names = [row.name.encode(errors="surrogateescape") for row in part.rows]
    features = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(coding(part.features).reshape(-1)),
        coding.width(part.features.shape[1]),
        mask=pyarrow.array([row.error is not None for row in part.rows]),
    )
    columns = {
        "name": pyarrow.array([name.decode(errors="backslashreplace") for name in names], pyarrow.string()),
        "name_bytes": pyarrow.array([None if _is_text(name) else name for name in names], pyarrow.binary()),
        "kind": pyarrow.array([row.kind for row in part.rows], pyarrow.string()),
        "size": pyarrow.array([row.size for row in part.rows], pyarrow.int64()),
        "time": pyarrow.array([row.time for row in part.rows], pyarrow.timestamp("ns", "UTC")),
        "error": pyarrow.array([_printable(row.error) for row in part.rows], pyarrow.string()),
        "features": features,
    }
    return pyarrow.table(columns).replace_schema_metadata(metadata)


def _printable(reason: str | None) -> str | None:
    """A reason may name a file whose name is not UTF-8."""
    return None if reason is None else reason.encode(errors="backslashreplace").decode()


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
