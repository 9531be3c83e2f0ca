"""Results of long commands: places that are checked early, and errors that say how to go on."""

import json
import uuid
from pathlib import Path
from typing import Any

from vladva_clip.storage import disk, whole


def write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all (`vladva_clip.storage.whole`).

    Raises:
        ValueError: the disk is full, or the place can't be written; earlier content stays.
    """
    try:
        whole.write(path, data)
    except OSError as error:
        raise ValueError(disk.refusal(path, error)) from error


def check_writable(folder: Path) -> None:
    """Make a folder and try to write a file in it, before hours of computing; the file is removed again.

    Raises:
        ValueError: as `write`.
    """
    _try(folder, folder)


def check_file(path: Path | None) -> None:
    """Check the same for the place of one file; do nothing for None.

    Raises:
        ValueError: as `write`; or there is a folder of that name.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file and can't be replaced by one: name another place")
    _try(path.parent, path)


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, keys sorted.

    Raises:
        ValueError: as `write`.
    """
    write(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def _try(folder: Path, meant: Path) -> None:
    """Write an empty file in a folder and remove it; an error names `meant`."""
    trial = folder / f".{uuid.uuid4().hex}.trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ValueError(disk.refusal(meant, error)) from error
