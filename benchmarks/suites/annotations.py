"""Reads annotation files and checks their types; errors name the file."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from vladva_clip.storage import json_files, plain_files

AGAIN = "truncated, or not the right file; get it again"


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file of annotations, of any size.

    Args:
        path: the file.
        kind: list or dict, the expected type of the whole.

    Raises:
        ValueError: the file is not JSON, or holds another type.
    """
    try:
        data = json_files.read(path, json_files.ANY_SIZE)
    except ValueError as error:
        raise ValueError(f"{error}: {AGAIN}") from error
    if not isinstance(data, kind):
        raise ValueError(
            f"{path} holds {type(data).__name__}, expected {kind.__name__}: not the right file; get it again"
        )
    return data


def read_json_lines(path: Path) -> list[Any]:
    """Read a file with one JSON value per line; blank lines are skipped.

    Raises:
        ValueError: a line is not JSON; its number is given.
    """
    lines = read_lines(path)
    try:
        return [_parsed(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path} does not hold JSON, one object per line ({error}): {AGAIN}") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file. Only line feeds and carriage returns end a line.

    Raises:
        ValueError: the path is not a regular file, or the text is not UTF-8.
    """
    try:
        return plain_files.read_text(path).removesuffix("\n").split("\n")
    except ValueError as error:
        raise ValueError(f"{error}: {AGAIN}") from error


def column(rows: list[dict[str, Any]], key: str, path: Path, kind: type = str) -> list[Any]:
    """Return one field of every annotation.

    Args:
        rows: the annotations.
        key: the field.
        path: the file that messages name.
        kind: the expected type of the field.

    Raises:
        ValueError: `rows` is not a list, or the field is missing or has another type.
    """
    if not isinstance(rows, list):
        raise ValueError(f"{path} has {type(rows).__name__}, expected a list: another layout; get the file again")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or key not in row:
            raise ValueError(f"annotation {number} of {path} has no {key!r}: another layout; get the file again")
        if not isinstance(row[key], kind) or isinstance(row[key], bool):
            found = f"{type(row[key]).__name__} for {key!r}, expected {kind.__name__}"
            raise ValueError(f"annotation {number} of {path} has {found}: another layout; get the file again")
    return [row[key] for row in rows]


def captions_by_image(data: dict[str, Any], path: Path) -> dict[int, list[str]]:
    """Return each image's captions from COCO-style annotations, by image number.

    Raises:
        ValueError: as `column`.
    """
    rows, captions = data.get("annotations", []), defaultdict(list)
    for number, caption in zip(column(rows, "image_id", path, int), column(rows, "caption", path), strict=True):
        captions[number].append(caption)
    return captions


def unique(values: list[Any], key: str, path: Path) -> list[Any]:
    """Return the values, which must all be different.

    Raises:
        ValueError: a value appears twice.
    """
    seen: set[Any] = set()
    twice = next((value for value in values if value in seen or seen.add(value)), None)
    if twice is not None:
        raise ValueError(f"{path} has the {key} {twice!r:.80} twice, expected unique values; get the file again")
    return values


def _parsed(line: str, number: int) -> Any:
    try:
        return json_files.parse(line, json_files.ANY_SIZE)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
