"""Get a model's files from the Hub into its cache. The only module that downloads models."""

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.file_download import repo_folder_name

from vladva_clip.sources import before_download, checksums, reach, registry
from vladva_clip.sources.hub_errors import HUB_ERRORS, SourceError, failed, is_refusal, shown
from vladva_clip.storage.adapter_files import CONFIG, LORA, LORA_CONFIG
from vladva_clip.storage.config import HUB, LOCAL
from vladva_clip.storage.lora_files import missing

SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.md")  # downloaded besides the weights
WEIGHTS = "*.safetensors"


class NotHereError(SourceError):
    """The model is on the Hub only, and `download=False` was given. `repo`: its Hub id; `part`: what it lacks."""

    def __init__(self, repo: str, part: str | None = None) -> None:
        super().__init__(f"{part or repo} is not in the Hub's cache on this machine, and download=False was given")
        self.repo = repo


@dataclass(frozen=True)
class Hub:
    """How to get a Hub repository: the cache (None for the client's default), with weights or not, downloading or not.

    Without downloading, weights are not looked for.
    """

    cache_dir: str | None = None
    weights: bool = True
    download: bool = True

    def directory(self, repo: str, revision: str | None) -> Path:
        """Return the repository's snapshot; raises SourceError (NotHereError without downloading)."""
        if self.download:
            return download(repo, revision, self.cache_dir, self.weights)
        return self._here(repo, revision, CONFIG, "config.json", LORA_CONFIG)

    def lora(self, repo: str, revision: str | None) -> Path:
        """Return the snapshot of a published LoRA's repository with PEFT's two files alone; errors as `directory`."""
        if not self.download:
            return self._here(repo, revision, LORA_CONFIG)
        directory = download(repo, revision, self.cache_dir, self.weights, (LORA_CONFIG, LORA))
        if not (directory / LORA_CONFIG).is_file():
            raise SourceError(
                f"{repo} has no {LORA_CONFIG}, though its profile says that it is an adapter ({directory})"
            )
        return directory

    def newest_here(self, repo: str, name: str = "config.json") -> Path | None:
        """Return the snapshot of a repository's main branch in the cache that has a file; None if there is none."""
        found = try_to_load_from_cache(repo, name, self.cache_dir)
        return Path(found).parent if isinstance(found, str) else None

    def _here(self, repo: str, revision: str | None, *names: str) -> Path:
        registry.refuse_own_name(repo)
        for name in names:
            if isinstance(found := try_to_load_from_cache(repo, name, self.cache_dir, revision), str):
                return Path(found).parent
        raise NotHereError(repo)


def find_file(name: str, filename: str, cache_dir: str | None = None) -> Path | None:
    """Return one file of a `hf-hub:` or `local-dir:` source, without downloading any other.

    Returns:
        Its path, or None if there is no such file, for whatever reason: callers fall back to loading the whole source,
        which reports the reason.

    Raises:
        ValueError: as `registry.refuse_own_name`, which allows no fallback.
    """
    repo, _, revision = name.removeprefix(HUB).partition("@")
    if not name.startswith(LOCAL):
        registry.refuse_own_name(repo)
    try:
        if name.startswith(LOCAL):
            path = Path(name.removeprefix(LOCAL)).expanduser() / filename
            return path if path.is_file() else None
        return Path(hf_hub_download(repo, filename, revision=revision or None, cache_dir=cache_dir))
    except (HTTPError, OSError, RuntimeError, HFValidationError):
        return None


def download(
    repo: str,
    revision: str | None,
    cache_dir: str | None,
    weights: bool = True,
    only: tuple[str, ...] = (*SMALL_FILES, WEIGHTS),
) -> Path:
    """Download a Hub repository's small files and safetensors (never pickles) into the cache.

    Args:
        repo: its Hub id.
        revision: a branch, tag or commit.
        cache_dir: the Hub's cache.
        weights: False leaves safetensors on the Hub.
        only: the names of the files, or patterns.

    Returns:
        The snapshot's directory in the cache.

    Raises:
        SourceError: with the Hub's reason and what to do; a large file whose sha256 is not the Hub's, which is removed;
            a disk without room for the weights, before anything is downloaded.
    """
    registry.refuse_own_name(repo)
    no_connection = reach.unreachable()
    if weights and no_connection is None:
        before_download.announce(repo, revision, cache_dir)
    patterns = [name for name in only if weights or not name.endswith(".safetensors")]
    try:
        known = _stored(repo, cache_dir)
        directory = _fetch(repo, revision, cache_dir, patterns, local_files_only=no_connection is not None)
    except HUB_ERRORS as error:
        error.__cause__ = error.__cause__ or no_connection
        raise _explained(repo, revision, error) from shown(error)
    _refuse_damaged(repo, directory, known)
    if weights and LORA in only and not (directory / LORA).is_file():
        raise SourceError(missing(directory, repo))
    if weights and not any(directory.glob(WEIGHTS)):
        raise SourceError(_without_weights(repo, directory))
    return directory


def _explained(repo: str, revision: str | None, error: Exception) -> SourceError:
    what = f"{repo} could not be downloaded"
    if not isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled) or is_refusal(error):
        return failed(what, repo, revision, error)
    if not isinstance(error, IncompleteSnapshotError):
        return failed(what, repo, None, error)
    return _incomplete(repo, error)


def _fetch(repo: str, revision: str | None, cache_dir: str | None, patterns: list[str], local_files_only: bool) -> Path:
    """Download the adapter's config last, so that an interrupted download leaves nothing that loads."""
    options = {"cache_dir": cache_dir, "allow_patterns": patterns, "local_files_only": local_files_only}
    rest = Path(snapshot_download(repo, revision=revision, ignore_patterns=[CONFIG], **options))
    return Path(snapshot_download(repo, revision=commit_of(rest) or revision, **options))


def _stored(repo: str, cache_dir: str | None) -> frozenset[str]:
    """The names of a repository's blobs in the cache, most of which are checksums."""
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blobs = Path(cache_dir or constants.HF_HUB_CACHE).expanduser() / folder / "blobs"
    return frozenset(os.listdir(blobs)) if blobs.is_dir() else frozenset()


def _refuse_damaged(repo: str, directory: Path, known: frozenset[str]) -> None:
    """Check a base only when it is downloaded, since it is large, and an adapter whenever it is loaded."""
    adapter = (directory / CONFIG).is_file()
    damaged = checksums.damaged(directory, frozenset() if adapter else known)
    for path in damaged:
        checksums.remove(path)
    if damaged:
        names = ", ".join(str(path.relative_to(directory)) for path in damaged)
        raise SourceError(
            f"{names} of {repo} was downloaded with a sha256 other than the Hub's, and was removed from the cache: try "
            "again; if that does not help, a proxy or mirror on the way (HF_ENDPOINT) changes files"
        )


def _incomplete(repo: str, error: IncompleteSnapshotError) -> SourceError:
    snapshot = getattr(error, "snapshot_path", None)  # only huggingface_hub 2.x has it
    if snapshot is not None and not any(Path(snapshot).glob("*.safetensors")):
        return SourceError(_without_weights(repo, Path(snapshot)))
    return SourceError(f"the cache holds {repo} in part only ({error}): go online once, with HF_HUB_OFFLINE unset")


def _without_weights(repo: str, directory: Path) -> str:
    """Explain a snapshot without weights: offline, huggingface_hub returns one when the cache lists no files for it."""
    return (
        f"the cache holds {repo} without weights ({directory} has no safetensors): they were never downloaded, as a "
        "tokenizer needs none, or the repository has none, and no other kind is read. "
        "Go online once, with HF_HUB_OFFLINE unset, to download them"
    )


def commit_of(directory: Path) -> str | None:
    """The commit of a snapshot in the Hub's cache: the name of its directory; None elsewhere."""
    return directory.name if directory.parent.name == "snapshots" else None
