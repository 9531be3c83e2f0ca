"""The place of an output, checked before any work: nothing is made, and nothing that is there is changed."""

import os
from pathlib import Path


def check_folder(path: Path | str, name: str = "") -> None:
    """Check that a folder can be written, or made with its parents.

    Args:
        path: the folder's place; it need not exist.
        name: what stands in front of it in the error, such as an option.

    Raises:
        ValueError: it is a file, lies below one, or can't be written; says which path is the reason.
    """
    reason = _reason(Path(path).absolute())
    if reason:
        raise ValueError(_refusal(name, path, reason, "a folder, or a place where one can be made"))


def check_file(path: Path | str | None, name: str = "") -> None:
    """Check that a file can be written, with its parents made; do nothing for None. As `check_folder`."""
    if path is None:
        return
    place = Path(path).absolute()
    reason = f"{place} is a directory" if os.path.isdir(place) else _reason(place.parent)
    if reason:
        raise ValueError(_refusal(name, path, reason, "the place of a file"))


def check_beside(path: Path | str, name: str = "") -> None:
    """Check that a folder or file can be made at a place, or replace what is there. As `check_folder`."""
    reason = _reason(Path(path).absolute().parent)
    if reason:
        raise ValueError(_refusal(name, path, reason, "a place in a folder that can be written"))


def _refusal(name: str, path: Path | str, reason: str, expected: str) -> str:
    return f"{name} {path} can't be written ({reason}); expected {expected}: choose another one".lstrip()


def _reason(place: Path) -> str:
    """Why no entry can be made in a folder, which need not exist; "" if it can."""
    try:
        there = next(path for path in (place, *place.parents) if _is_there(path))
        if not os.path.isdir(there):
            return f"{there} is {'a file' if os.path.exists(there) else 'a broken link'}"
        return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} is not writable"
    except (OSError, ValueError) as error:  # a name that is too long or no name at all, a folder that can't be entered
        return str(error)


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
