"""Whether a repository's weights are in the Hub's cache on this machine. Looks at files only, never at the network."""

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from vladva_clip.storage import json_files

YES, PARTLY, NO = "yes", "in part", "no"
_INDEX = "model.safetensors.index.json"


def cache(cache_dir: str | None = None) -> Path:
    """Return the directory of the Hub's cache, the client's default for None."""
    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser()


def folder(repo: str, cache_dir: str | None = None) -> Path:
    """Return the cache's folder of a repository, which need not exist."""
    return cache(cache_dir) / repo_folder_name(repo_id=repo, repo_type="model")


def state(repo: str, revision: str | None = None, cache_dir: str | None = None) -> str:
    """Return "yes", "in part" or "no" for a repository's weights.

    Args:
        repo: the Hub id.
        revision: a commit, branch or tag; the main branch counts as well, since loading falls back to it offline.
        cache_dir: the Hub's cache.
    """
    found = [_state(directory) for directory in _snapshots(folder(repo, cache_dir), revision)]
    return next((word for word in (YES, PARTLY) if word in found), NO)


def snapshot(repo: str, revision: str | None, cache_dir: str | None) -> Path | None:
    """Return the snapshot of one revision, the main branch for None; None if the cache has no such directory."""
    root = folder(repo, cache_dir)
    reference = root / "refs" / (revision or constants.DEFAULT_REVISION)
    commit = reference.read_text().strip() if reference.is_file() else revision or ""
    directory = root / "snapshots" / commit
    return directory if commit and directory.is_dir() else None


def is_whole(directory: Path) -> bool:
    """Whether a snapshot has all its weight files, by its index if there is one."""
    return _state(directory) == YES


def _snapshots(root: Path, revision: str | None) -> list[Path]:
    commits = {revision} if revision else set()
    for name in {revision or constants.DEFAULT_REVISION, constants.DEFAULT_REVISION}:
        if (reference := root / "refs" / name).is_file():
            commits.add(reference.read_text().strip())
    return [root / "snapshots" / commit for commit in sorted(commits)]


def _state(directory: Path) -> str:
    there = {path.name for path in directory.glob("*.safetensors") if path.exists()}
    if not (directory / _INDEX).exists():
        return YES if there else NO
    try:
        wanted = set(json_files.read(directory / _INDEX)["weight_map"].values())
    except (ValueError, LookupError, AttributeError, TypeError):  # damaged: loading reports it
        return PARTLY
    return YES if wanted and wanted <= there else PARTLY if there & wanted else NO
