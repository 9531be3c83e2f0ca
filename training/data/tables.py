"""JSONL and CSV files as map-style sources: rows with an image path or the image itself, and captions."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vladva_clip import strict_json
from vladva_training.data.fields import CAPTION_FIELDS, IMAGE_FIELDS, decode_text, row_captions, row_record
from vladva_training.data.paths import require_file
from vladva_training.data.records import BadRecord, Record

MAX_CSV_FIELD = 2**26
"""Letters that a value of a CSV file may have: an image in base64, and not all that follows an open quote."""


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
            row = strict_json.parse(text, strict_json.RECORDS)
        except ValueError as error:
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
    """The rows of a table, found once and read one by one. A key is "row 17", without the line of names."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(name, path.parent)
        self.path, self._comma = path, "\t" if path.suffix == ".tsv" else ","
        self._bounds = self._find_rows()
        self.columns = self._names()
        require_columns(self.columns, name)
        if not len(self):
            raise ValueError(f"{name}: {path} holds no row; expected at least one below the names of the columns")

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def key(self, index: int) -> str:
        return f"row {index + 1}"

    def row(self, index: int) -> Mapping[str, object]:
        key = self.key(index)
        values = self._values(index + 1, key)
        if len(values) != len(self.columns):
            raise BadRecord("malformed row", key, f"{len(values)} values for {len(self.columns)} columns")
        return dict(zip(self.columns, values, strict=True))

    def _names(self) -> list[str]:
        try:
            return self._values(0, "the line of names", "utf-8-sig") if len(self._bounds) else []
        except BadRecord as error:
            raise ValueError(f"{self.name}: {self.path}: {error}; expected the names of the columns") from error

    def _values(self, number: int, key: str, encoding: str = "utf-8") -> list[str]:
        """The values of a row; 0 is the line of names. What is no UTF-8 comes as surrogates, which `texts` refuses."""
        start, end = self._bounds[number]
        with self.path.open("rb") as file:
            file.seek(start)
            text = file.read(end - start).decode(encoding, errors="surrogateescape")
        try:
            return next(csv.reader([text], delimiter=self._comma, strict=True))
        except csv.Error as error:
            raise BadRecord("malformed row", key, str(error)) from error

    def _find_rows(self) -> np.ndarray:
        """Where rows start and end, `(N + 1, 2)` int64, blank lines left out; a row may hold quoted line breaks."""
        csv.field_size_limit(MAX_CSV_FIELD)
        bounds, start = [], 0
        with self.path.open("rb") as file:
            lines = (line.decode("utf-8", errors="surrogateescape") for line in iter(file.readline, b""))
            reader = csv.reader(lines, delimiter=self._comma, strict=True)
            while (values := self._next_row(reader, len(bounds))) is not None:
                if values:
                    bounds.append((start, file.tell()))
                start = file.tell()
        return np.array(bounds, dtype=np.int64).reshape(-1, 2)

    def _next_row(self, reader, number: int) -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error as error:
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise ValueError(
                    f"{self.name}: a quote opens in row {number} of {self.path} and is not closed; expected a second "
                    'one, and "" for a quote within a value'
                ) from error
            return ["malformed"]  # reading it says so again


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
