"""JSONL and CSV files as map-style sources: rows with an image path or the image itself, and captions."""

import codecs
import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vladva_clip.records.fields import (
    CAPTION_FIELDS,
    CONVERSATIONS,
    FIELDS,
    IMAGE_FIELDS,
    row_captions,
    row_image,
    row_record,
)
from vladva_clip.records.json_rows import json_object
from vladva_clip.records.paths import require_text_file
from vladva_clip.records.records import BadRecord, Record, printable

MAX_CSV_FIELD = 2**26
"""Most characters in a value of a CSV file: enough for an image in base64, but not for all text after an open quote."""
MAX_LINE = 2**27
"""Most bytes in a line of a JSONL file: enough for an image in base64, but not for a large file without line breaks."""


class RowSource:
    """Rows with fields. Subclasses define how a row is read.

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

    def folder_of(self, index: int) -> Path:
        """Return the folder where a row's relative image path starts."""
        return self.folder

    def __getitem__(self, index: int) -> Record:
        return row_record(self.row(self._checked(index)), self.key(index), self.folder_of(index))

    def picture(self, index: int) -> Image.Image:
        """Read only the picture of a row."""
        return row_image(self.row(self._checked(index)), self.key(index), self.folder_of(index))

    def captions(self, index: int) -> tuple[str, ...]:
        """Read only the captions of a row."""
        return row_captions(self.row(self._checked(index)), self.key(index))

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return index


def open_jsonl(path: str, spec: str) -> "JsonlSource":
    """Open a file with one JSON object per line.

    Raises:
        ValueError: no such file, or no records in it.
    """
    return JsonlSource(require_text_file(path, spec), spec)


class JsonlSource(RowSource):
    """The lines of a file, indexed once and read one by one; blank lines are ignored. Keys are like "line 17"."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(name, path.parent)
        self.path = path
        self._starts, self._numbers = _find_lines(path)
        if not len(self):
            raise ValueError(f"{name}: {path} has only blank lines; expected one JSON object per line")

    def __len__(self) -> int:
        return len(self._starts)

    def key(self, index: int) -> str:
        return f"line {self._numbers[index]}"

    def row(self, index: int) -> Mapping[str, object]:
        key = self.key(index)
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            line = file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise BadRecord("not json", key, f"a line of more than {MAX_LINE} bytes, expected one object")
        return json_object(line, key)


def open_csv(path: str, spec: str, captioned: bool = True) -> "CsvSource":
    """Open a file of comma-separated values (tabs in a `.tsv`) with column names in the first line.

    Args:
        path: the file.
        spec: what the user wrote, for messages.
        captioned: whether there must be a caption column.

    Raises:
        ValueError: no such file, no records in it, no image column, no caption column where there must be one.
    """
    return CsvSource(require_text_file(path, spec), spec, captioned)


class CsvSource(RowSource):
    """The rows of a table, indexed once and read one by one. Keys are like "row 17", not counting the column names."""

    def __init__(self, path: Path, name: str, captioned: bool = True) -> None:
        super().__init__(name, path.parent)
        self.path, self._comma = path, "\t" if path.suffix.lower() == ".tsv" else ","
        self._bounds = self._find_rows()
        self.columns = self._names()
        require_columns(self.columns, name, captioned)
        require_once(self.columns, name)
        if not len(self):
            raise ValueError(f"{name}: {path} has no rows; expected at least one below the column names")

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
            return self._values(0, "the line of names") if len(self._bounds) else []
        except BadRecord as error:
            raise ValueError(f"{self.name}: {self.path}: {error}; expected column names") from error

    def _values(self, number: int, key: str) -> list[str]:
        """The values of a row; row 0 is the column names. Bytes that aren't UTF-8 become surrogates for `texts`."""
        start, end = self._bounds[number]
        with self.path.open("rb") as file:
            file.seek(start)
            text = file.read(end - start).decode("utf-8", errors="surrogateescape")
        try:
            return next(self._reader([text]))
        except csv.Error as error:
            raise BadRecord("malformed row", key, str(error)) from error

    def _reader(self, lines: Iterable[str]):
        csv.field_size_limit(MAX_CSV_FIELD)  # each time: the limit is per process, and a worker may be new
        return csv.reader(lines, delimiter=self._comma, strict=True)

    def _find_rows(self) -> np.ndarray:
        """Where rows start and end, `(N + 1, 2)` int64, without blank lines; a row may have quoted line breaks."""
        bounds = []
        with self.path.open("rb") as file:
            start = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
            file.seek(start)
            reader = self._reader(line.decode("utf-8", errors="surrogateescape") for line in iter(file.readline, b""))
            while (values := self._next_row(reader, len(bounds))) is not None:
                if values:
                    bounds.append((start, file.tell()))
                start = file.tell()
        return np.array(bounds, dtype=np.int64).reshape(-1, 2)

    def _next_row(self, reader, number: int) -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error as error:
            if (reason := str(error)).startswith(("unexpected end", "field larger")):
                raise ValueError(_open_quote(f"{self.name}: row {number} of {self.path}", reason)) from error
            return ["malformed"]  # reading the row raises this again


def _open_quote(where: str, reason: str) -> str:
    if reason.startswith("unexpected end"):
        return f'{where} opens a quote that is not closed; expected a second one, or "" for a quote within a value'
    return (
        f"{where} has a value of more than {MAX_CSV_FIELD} characters: is a quote not closed? Expected a second one, "
        "or images of that size in separate files"
    )


def require_columns(names: list[str], spec: str, captioned: bool = True) -> None:
    """Refuse a table without an image or caption column, or with a misspelled column that would be ignored.

    Args:
        names: of its columns.
        spec: what the user wrote, for messages.
        captioned: whether there must be a caption column.

    Raises:
        ValueError: states the columns found and those expected.
    """
    for name in names:
        if name not in FIELDS and (meant := name.strip().lower()) in FIELDS:
            raise ValueError(f"{spec}: the column {printable(name)!r} is not used; rename it to {meant}, or remove it")
    for what, fields in (("image", IMAGE_FIELDS), ("caption", (*CAPTION_FIELDS, CONVERSATIONS))):
        if not set(names) & set(fields) and (captioned or what == "image"):
            found = printable(", ".join(names)) or "none"
            raise ValueError(f"{spec}: no {what} in the columns {found}; expected one of {', '.join(fields)}")


def require_once(names: Sequence[str], where: str) -> None:
    """Refuse a table in which a column that we use appears twice.

    Raises:
        ValueError: states the column's name.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1 and name in FIELDS]:
        raise ValueError(f"{where}: the column {twice[0]} appears {names.count(twice[0])} times; expected it once")


def _find_lines(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the lines that are not blank, and their line numbers, from 1."""
    starts, numbers, number, offset, at_start = [], [], 1, 0, True
    with path.open("rb") as file:
        while part := file.readline(2**20):  # limits memory for an endless line
            if at_start and part.removeprefix(codecs.BOM_UTF8).strip():
                starts.append(offset)
                numbers.append(number)
            offset, at_start = offset + len(part), part.endswith(b"\n")
            number += at_start
    return np.array(starts, dtype=np.int64), np.array(numbers, dtype=np.int64)
