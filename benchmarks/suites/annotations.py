"""Annotation files: read as what they should be, or refused with their name."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from vladva_clip.storage import json_files, plain_files

AGAIN = "cut or another file; get it again"


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file of annotations, of any size.

    Args:
        path: the file.
        kind: list or dict, what it must hold.

    Raises:
        ValueError: no JSON, or something else in it.
    """
    try:
        data = json_files.read(path, json_files.ANY_SIZE)
    except ValueError as error:
        raise ValueError(f"{error}: {AGAIN}") from error
    if not isinstance(data, kind):
        raise ValueError(f"{path} holds {type(data).__name__}, expected {kind.__name__}: another file; get it again")
    return data


def read_json_lines(path: Path) -> list[Any]:
    """Read a file of one JSON value a line; blank lines are left out.

    Raises:
        ValueError: a line that is no JSON, by its number.
    """
    lines = read_lines(path)
    try:
        return [_parsed(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path} is no JSON, one object a line ({error}): {AGAIN}") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, ended by line feeds or carriage returns; no other sign ends a line.

    Raises:
        ValueError: not a regular file, or not UTF-8.
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
        path: the file to blame.
        kind: what the field must hold.

    Raises:
        ValueError: no list, or an annotation without the field or with something else in it.
    """
    if not isinstance(rows, list):
        raise ValueError(f"{path} has {type(rows).__name__} for a list: another layout; get the file again")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or key not in row:
            raise ValueError(f"annotation {number} of {path} has no {key!r}: another layout; get the file again")
        if not isinstance(row[key], kind) or isinstance(row[key], bool):
            found = f"{type(row[key]).__name__} for {key!r}, expected {kind.__name__}"
            raise ValueError(f"annotation {number} of {path} has {found}: another layout; get the file again")
    return [row[key] for row in rows]


def captions_by_image(data: dict[str, Any], path: Path) -> dict[int, list[str]]:
    """Return each image's captions in COCO's form of annotations, by the image's number.

    Raises:
        ValueError: as `column`.
    """
    rows, captions = data.get("annotations", []), defaultdict(list)
    for number, caption in zip(column(rows, "image_id", path, int), column(rows, "caption", path), strict=True):
        captions[number].append(caption)
    return captions


def unique(values: list[Any], key: str, path: Path) -> list[Any]:
    """Return values that must be different ones.

    Raises:
        ValueError: a value that stands twice.
    """
    seen: set[Any] = set()
    twice = next((value for value in values if value in seen or seen.add(value)), None)
    if twice is not None:
        raise ValueError(f"{path} has the {key} {twice!r:.80} twice: which one counts? Get the file again")
    return values


def _parsed(line: str, number: int) -> Any:
    try:
        return json_files.parse(line, json_files.ANY_SIZE)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
