"""Annotation files: read as what they should be, or refused with their name."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file of annotations.

    Args:
        path: the file.
        kind: list or dict, what it must hold.

    Raises:
        ValueError: no JSON, or something else in it.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is no readable JSON ({error}): cut or another file; get it again") from error
    if not isinstance(data, kind):
        raise ValueError(f"{path} holds {type(data).__name__}, expected {kind.__name__}: another file; get it again")
    return data


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
        if not isinstance(row[key], kind):
            found = f"{type(row[key]).__name__} for {key!r}, expected {kind.__name__}"
            raise ValueError(f"annotation {number} of {path} has {found}: another layout; get the file again")
    return [row[key] for row in rows]
