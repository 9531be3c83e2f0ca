"""JSONL and CSV files as map-style sources: rows with an image path or the image itself, and captions."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vladva_training.data.fields import CAPTION_FIELDS, IMAGE_FIELDS, decode_text, row_captions, row_record
from vladva_training.data.paths import require_file
from vladva_training.data.records import BadRecord, Record

_CSV_BLOCK = 2**24  # bytes; the longest row that can be read


class RowSource:
    """Rows with fields, of which each kind of table says how one is read.

    Args:
        name: the spec.
        folder: where relative image paths start.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def __len__(self) -> int:
        raise NotImplementedError

    def key(self, index: int) -> str:
        """Return the key of a row."""
        raise NotImplementedError

    def row(self, index: int) -> Mapping[str, object]:
        """Read a row.

        Raises:
            BadRecord: the row cannot be read.
        """
        raise NotImplementedError

    def __getitem__(self, index: int) -> Record:
        return row_record(self.row(self._checked(index)), self.key(index), self.folder)

    def captions(self, index: int) -> tuple[str, ...]:
        """Read the captions of a row and not its image."""
        return row_captions(self.row(self._checked(index)), self.key(index))

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return index


def open_jsonl(path: str, spec: str) -> "JsonlSource":
    """Open a file with one JSON object per line.

    Raises:
        ValueError: no such file, or no record in it.
    """
    return JsonlSource(require_file(path, spec), spec)


class JsonlSource(RowSource):
    """The lines of a file, found once and read one by one; blank ones do not count. A key is "line 17"."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(name, path.parent)
        self.path = path
        self._starts, self._numbers = _find_lines(path)
        if not len(self):
            raise ValueError(f"{name}: {path} holds blank lines only; expected one JSON object per line")

    def __len__(self) -> int:
        return len(self._starts)

    def key(self, index: int) -> str:
        return f"line {self._numbers[index]}"

    def row(self, index: int) -> Mapping[str, object]:
        key = self.key(index)
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            text = decode_text(file.readline(), key)
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadRecord("not json", key, str(error)) from error
        if not isinstance(row, dict):
            raise BadRecord("not json", key, f"found {type(row).__name__}, expected an object")
        return row


def open_csv(path: str, spec: str) -> "CsvSource":
    """Open a file of comma-separated values (tabs in a `.tsv`) with the names of its columns in the first line.

    Raises:
        ValueError: no such file, no record in it, no image or caption column.
    """
    return CsvSource(require_file(path, spec), spec)


class CsvSource(RowSource):
    """The rows of a table, kept in memory as bytes. A key is "row 17", without the line of names.

    Lines with another number of values than there are columns stand at the end, as bad records.
    """

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(name, path.parent)
        self._table, self._malformed = _read_csv(path, name)
        require_columns(self._table.column_names, name)
        if not len(self):
            raise ValueError(f"{name}: {path} holds no row; expected at least one below the names of the columns")

    def __len__(self) -> int:
        return self._table.num_rows + len(self._malformed)

    def key(self, index: int) -> str:
        rows = self._table.num_rows
        return f"row {index + 1}" if index < rows else f"malformed line {index - rows + 1}"

    def row(self, index: int) -> Mapping[str, object]:
        rows, key = self._table.num_rows, self.key(index)
        if index >= rows:
            raise BadRecord("malformed row", key, self._malformed[index - rows])
        values = {name: column[index].as_py() for name, column in self._columns()}
        return {name: decode_text(value, key) for name, value in values.items() if value is not None}

    def _columns(self):
        names = zip(self._table.column_names, self._table.columns, strict=True)
        return [(name, column) for name, column in names if name in (*IMAGE_FIELDS, *CAPTION_FIELDS, "hard_negatives")]


def require_columns(names: list[str], spec: str) -> None:
    """Refuse a table without an image or without a caption.

    Raises:
        ValueError: with the columns found and those expected.
    """
    for what, fields in (("image", IMAGE_FIELDS), ("caption", CAPTION_FIELDS)):
        if not set(names) & set(fields):
            raise ValueError(
                f"{spec}: no {what} in the columns {', '.join(names) or 'none'}; expected one of {', '.join(fields)}"
            )


def _find_lines(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the lines that are not blank, and their numbers, from 1."""
    starts, numbers, offset = [], [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                starts.append(offset)
                numbers.append(number)
            offset += len(line)
    return np.array(starts, dtype=np.int64), np.array(numbers, dtype=np.int64)


def _read_csv(path: Path, spec: str):
    """The table, its values left as bytes, since one that is no UTF-8 must not cost the others; and malformed lines."""
    import pyarrow
    from pyarrow import csv

    malformed = []

    def set_aside(line: csv.InvalidRow) -> str:
        found = f"{line.actual_columns} values, expected {line.expected_columns}: {line.text:.80}"
        malformed.append(found.encode(errors="replace").decode())
        return "skip"

    parse = csv.ParseOptions(
        delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True, invalid_row_handler=set_aside
    )
    read = csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK)
    try:
        names = csv.open_csv(path, read, parse).schema.names
        convert = csv.ConvertOptions(check_utf8=False, column_types={name: pyarrow.binary() for name in names})
        malformed.clear()
        return csv.read_csv(path, read, parse, convert), malformed
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{spec}: {path} is no table of comma-separated values: {error}") from error
