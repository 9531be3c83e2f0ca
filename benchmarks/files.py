"""Files that are whole or absent: written beside their place, then renamed."""

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any


def write(path: Path, data: bytes) -> None:
    """Write a file; a reader sees the old one or the new one, and a failure leaves no part of it behind.

    Raises:
        ValueError: the disk is full, or the place can't be written; what was written before stays.
    """
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        raise ValueError(_refusal(path, error)) from error
    finally:
        with contextlib.suppress(OSError):  # the parent may be no folder, which has been said
            scratch.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Make a folder and try to write into it, before hours of computing whose results go there; nothing stays.

    Raises:
        ValueError: as `write`.
    """
    _try(folder, folder)


def check_file(path: Path | None) -> None:
    """Check the same for the place of one file; None for none.

    Raises:
        ValueError: as `write`, or a folder of that name.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file, so none can be written there: name another place")
    _try(path.parent, path)


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, keys sorted.

    Raises:
        ValueError: as `write`.
    """
    write(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def _try(folder: Path, meant: Path) -> None:
    """Write an empty file into a folder and take it away; what goes wrong is said of what is meant."""
    trial = folder / f".{uuid.uuid4().hex}.trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ValueError(_refusal(meant, error)) from error


def _refusal(path: Path, error: OSError) -> str:
    return (
        f"{path} can't be written ({error.strerror}): make room or name another place, and run the same command again; "
        "what was finished before is kept"
    )
