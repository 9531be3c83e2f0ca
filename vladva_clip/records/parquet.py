"""Parquet files as one source. The parts' columns are compared before any part is read."""

import glob
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from vladva_clip.interface import extras
from vladva_clip.records.huggingface import DatasetSource, fields_by_column, opening_errors
from vladva_clip.records.paths import expand_files
from vladva_clip.records.tables import require_once

ROWS_AT_A_TIME = 1000
"""Rows copied at a time. The default of `datasets` is the size of the first row group, which may be empty."""


@dataclass(frozen=True)
class Part:
    """One file: its Arrow schema and its number of rows."""

    path: Path
    schema: Any
    rows: int


@dataclass(frozen=True)
class Column:
    """A column of one file: a name for its type ("" if it has no values), and its `datasets` feature."""

    path: Path
    kind: str
    feature: Any


class ParquetSource(DatasetSource):
    """The rows of Parquet files, one file after another. Relative image paths start at the folder of the row's file."""

    def __init__(self, dataset, name: str, parts: Sequence[Part], root: Path | None, captioned: bool = True) -> None:
        super().__init__(dataset, name, root or parts[0].path.parent, captioned)
        self._folders = [root or part.path.parent for part in parts]
        self._ends = list(accumulate(part.rows for part in parts))
        if len(self) != self._ends[-1]:
            raise ValueError(f"{name}: {len(self)} rows were read, the files state {self._ends[-1]}; write them again")

    def folder_of(self, index: int) -> Path:
        """Return the folder of a row's file, or the directory named in the spec."""
        return self._folders[bisect_right(self._ends, index)]


def open_parquet(pattern: str, spec: str, captioned: bool = True) -> ParquetSource:
    """Open Parquet files by a path, a path with braces or a directory; `datasets` keeps a mapped copy in its cache.

    Parts without rows, which Spark, Dask and BigQuery write, are skipped.

    Args:
        pattern: the path.
        spec: what the user wrote, for messages.
        captioned: whether there must be a caption column.

    Raises:
        ExtraError: datasets or pyarrow is not installed.
        ValueError: missing files, a file that is not Parquet or is damaged, parts that differ in a column that is used,
            no rows in any part, no image column, no caption column where there must be one.
    """
    extras.require("datasets", "pyarrow", purpose=spec)
    paths = expand_files(pattern, ".parquet", spec)
    parts = [part for part in (_look_into(path, spec) for path in paths) if part.rows]
    if not parts:
        raise ValueError(f"{spec}: none of {len(paths)} files has rows ({paths[0]}, ...); expected at least one")
    root = Path(pattern).expanduser()
    rows = _read(parts, spec, captioned)
    return ParquetSource(rows, spec, parts, root if root.is_dir() else None, captioned)


def _look_into(path: Path, spec: str) -> Part:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return Part(path, file.schema_arrow, file.metadata.num_rows)
    except opening_errors() as error:
        raise ValueError(f"{spec}: {path} is not a complete Parquet file ({error}); write or get it again") from error


def _read(parts: Sequence[Part], spec: str, captioned: bool) -> Any:
    """The columns that a source uses, of all parts, as a `datasets.Dataset`."""
    from datasets import Dataset

    features = _common_features(parts, spec, captioned)
    paths = [glob.escape(str(part.path)) for part in parts]
    try:
        return Dataset.from_parquet(paths, columns=list(features), features=features, batch_size=ROWS_AT_A_TIME)
    except opening_errors() as error:
        raise ValueError(f"{spec}: {_blame(parts, list(features)) or error.__cause__ or error}") from error


def _common_features(parts: Sequence[Part], spec: str, captioned: bool) -> Any:
    """The columns that are used, each with its type in the first part where it is not all null."""
    from datasets import Features

    chosen: dict[str, Column] = {}
    for part in parts:
        found = _columns(part, spec, captioned)
        if chosen and set(found) != set(chosen):
            raise ValueError(
                f"{spec}: {part.path} has the columns {', '.join(found)}, but {parts[0].path} has "
                f"{', '.join(chosen)}; expected the same columns in each part: open the others as a separate source"
            )
        for name, column in found.items():
            chosen[name] = _same(name, chosen.get(name, column), column, spec)
    return Features({name: column.feature for name, column in chosen.items()})


def _columns(part: Part, spec: str, captioned: bool) -> dict[str, Column]:
    """Name -> column, for the columns of a part that are used."""
    from datasets import Features

    where = f"{spec}: {part.path}"
    require_once(part.schema.names, where)
    try:
        features = Features.from_arrow_schema(part.schema)
    except opening_errors() as error:
        raise ValueError(f"{where} has columns that `datasets` can't read ({error})") from error
    names = fields_by_column(features, where, captioned)
    return {name: Column(part.path, _kind(part.schema.field(name).type), features[name]) for name in names}


def _same(name: str, known: Column, found: Column, spec: str) -> Column:
    """Return the column with a type, of two parts' columns of the same name."""
    if known.kind and found.kind and known.kind != found.kind:
        raise ValueError(
            f"{spec}: the column {name} is {found.kind} in {found.path}, but {known.kind} in {known.path}; expected "
            "one type: write the parts again, or open them as separate sources"
        )
    return known if known.kind else found


def _kind(arrow_type: Any) -> str:
    """A type's name, regardless of width and field order; "" for a column without values."""
    from pyarrow import types

    if types.is_null(arrow_type):
        return ""
    if types.is_dictionary(arrow_type):
        return _kind(arrow_type.value_type)
    if types.is_struct(arrow_type):
        return "struct of " + ", ".join(sorted(f"{field.name} {_kind(field.type)}".strip() for field in arrow_type))
    if types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type):
        inner = _kind(arrow_type.value_type)
        return inner and f"list of {inner}"  # pandas writes columns of empty lists as lists of nulls
    return re.sub(r"^(large_)?(string|binary)(_view)?$", r"\2", str(arrow_type))


def _blame(parts: Sequence[Part], columns: list[str]) -> str:
    """Say which part can't be read, and why; "" if all can."""
    import pyarrow.parquet

    for part in parts:
        try:
            with pyarrow.parquet.ParquetFile(part.path) as file:
                for _ in file.iter_batches(columns=columns):
                    pass
        except opening_errors() as error:
            return f"{part.path} is damaged ({error}); write or download it again"
    return ""
