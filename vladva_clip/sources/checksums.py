"""Check files of the Hub's cache against the sha256 in their names."""

import hashlib
import os
import re
from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")


def damaged(directory: Path, but: frozenset[str] = frozenset()) -> list[Path]:
    """Return the files of a snapshot whose content is not what the Hub stated.

    The client compares sizes only. It names a large file's blob after its sha256 (the ETag), which is checked here.
    Small files' blobs are named after a git hash, which mirrors compute differently, and copies (where links aren't
    possible) have neither; both are skipped.

    Args:
        directory: a snapshot of the Hub's cache.
        but: checksums to skip.
    """
    links = {path: Path(os.readlink(path)).name for path in sorted(directory.rglob("*")) if path.is_symlink()}
    stated = {path: name for path, name in links.items() if _SHA256.fullmatch(name) and name not in but}
    return [path for path, name in stated.items() if path.exists() and _sha256(path) != name]


def remove(path: Path) -> None:
    """Remove a file of a snapshot and the content that it links to, so that it is downloaded again next time."""
    blob = path.parent / os.readlink(path)
    content = blob.resolve()  # another place, if repositories share their blobs
    for each in (path, blob, content):
        each.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
