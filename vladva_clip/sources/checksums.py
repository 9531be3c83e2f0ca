"""Files of the Hub's cache against the sha256 that they are named after."""

import hashlib
import os
import re
from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")


def damaged(directory: Path, but: frozenset[str] = frozenset()) -> list[Path]:
    """Find the files of a snapshot whose content is not what the Hub said.

    The client compares sizes only. It stores a large file under its sha256 (its ETag), which is compared here; small
    files stand under a git hash, which mirrors make differently, and copies (where links aren't possible) have neither.

    Args:
        directory: a snapshot of the Hub's cache.
        but: checksums that need no look.
    """
    links = {path: Path(os.readlink(path)).name for path in sorted(directory.rglob("*")) if path.is_symlink()}
    stated = {path: name for path, name in links.items() if _SHA256.fullmatch(name) and name not in but}
    return [path for path, name in stated.items() if path.exists() and _sha256(path) != name]


def remove(path: Path) -> None:
    """Remove a file of a snapshot and the content that it links to, so that the next download brings it again."""
    blob = path.parent / os.readlink(path)
    content = blob.resolve()  # another place, where repositories share contents
    for each in (path, blob, content):
        each.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
