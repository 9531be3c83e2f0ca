"""A Hugging Face cache written by hand, as the Hub client lays it out."""

import shutil
from pathlib import Path


def put(cache_dir: Path, repo: str, files: Path, commit: str = "a" * 40, ref: str = "main") -> Path:
    """Put a directory's files into the cache as one snapshot of `repo`; returns the snapshot's directory."""
    root = cache_dir / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    shutil.copytree(files, snapshot)
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    return snapshot
