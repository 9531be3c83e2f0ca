"""A Hugging Face cache written by hand, as the Hub client lays it out."""

import json
import shutil
import tempfile
from pathlib import Path

BASE = "org/base"


def put(cache_dir: Path, repo: str, files: Path, commit: str = "a" * 40, ref: str = "main") -> Path:
    """Put a directory's files into the cache as one snapshot of `repo`; returns the snapshot's directory."""
    root = cache_dir / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    shutil.copytree(files, snapshot)
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    return snapshot


def put_adapter(cache_dir: Path, repo: str, adapter: Path, base: Path) -> None:
    """Put an adapter and its base into the cache, as if it had been trained over the base's repository, `org/base`."""
    put(cache_dir, BASE, base)
    with tempfile.TemporaryDirectory() as scratch:
        named = Path(shutil.copytree(adapter, Path(scratch) / "adapter"))
        config = json.loads((named / "vladva_config.json").read_text())
        config["base"]["id"] = BASE
        (named / "vladva_config.json").write_text(json.dumps(config))
        put(cache_dir, repo, named)
