"""Name, tag, `hf-hub:`, `local-dir:` -> a local directory. The only file that downloads."""

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.file_download import repo_folder_name

from vladva_clip.interface.arguments import user_path
from vladva_clip.sources import checksums, registry
from vladva_clip.sources.hub_errors import HUB_ERRORS, SourceError, failed, is_refusal
from vladva_clip.storage.config import HUB, LOCAL, BaseConfig

CONFIG_FILE = "vladva_config.json"
EXPORT_FILE = "vladva_export.json"  # of a plain LVLM whose vocabulary holds the prompts (docs/export.md)
SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.md")  # what is downloaded, beside safetensors


@dataclass(frozen=True)
class Source:
    """A local directory with an adapter (`vladva_config.json`) or a bare LVLM (`config.json`).

    base_id and revision name it inside other checkpoints; image_size and dtype are what the registry settles for it.
    """

    directory: Path
    base_id: str
    revision: str | None = None
    image_size: int | None = None  # pixels
    dtype: str | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether the directory is one of our checkpoints rather than a bare LVLM."""
        return (self.directory / CONFIG_FILE).is_file()

    @property
    def is_export(self) -> bool:
        """Whether the directory is an LVLM whose prompts are folded into its vocabulary."""
        return not self.is_adapter and (self.directory / EXPORT_FILE).is_file()


def has_schema(name: str) -> bool:
    """Whether a model name is a `hf-hub:` or `local-dir:` source."""
    return str(name).startswith((HUB, LOCAL))


def locate(
    model_name: str,
    pretrained: str | os.PathLike[str] | None = None,
    cache_dir: str | None = None,
    weights: bool = True,
) -> Source:
    """Resolve what a user wrote to a local directory, downloading when needed.

    Args:
        model_name: a name of `list_models()`, `hf-hub:ORG/REPO[@REVISION]` or `local-dir:PATH`.
        pretrained: a tag, or a directory with an adapter; ignored for a schema.
        cache_dir: the Hub's cache, the client's default for None.
        weights: False leaves weight files on the Hub (tokenizers need none).

    Raises:
        ValueError: unknown names and tags, paths that don't exist, what the Hub refuses, no network.
    """
    if has_schema(model_name):
        return _from_schema(model_name, cache_dir, weights)
    entry = registry.find(model_name)
    if entry.source is not None:
        registry.find_tag(model_name, pretrained or None)
        return _from_schema(entry.source, cache_dir, weights)
    if isinstance(pretrained, os.PathLike):
        return _local(pretrained)
    if pretrained and pretrained not in entry.tags and (os.path.sep in pretrained or os.path.exists(pretrained)):
        return _local(pretrained)
    place = entry.tags[registry.find_tag(model_name, pretrained or None)]
    if place is not None:
        return _place(place, cache_dir, weights)
    return _named_base(registry.canonical(model_name), cache_dir, weights)


def from_name(name: str, cache_dir: str | None = None, revision: str | None = None) -> Source:
    """Resolve a directory, a Hub id `org/name`, or any name that `locate` takes.

    Args:
        name: what the user wrote.
        cache_dir: the Hub's cache, the client's default for None.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ValueError: as `locate`; a revision of a directory.
    """
    if name.startswith("~"):
        name = str(user_path(name))
        if not Path(name).is_dir():
            raise ValueError(f"{name} is not there or no directory")
    if Path(name).is_dir():
        if revision:
            raise ValueError(f"revision {revision!r} was given with the directory {name}; only Hub ids have revisions")
        return _local(name)
    if "/" in name and not has_schema(name):
        name = f"{HUB}{name}"
    return locate(f"{name}@{revision}" if revision else name, cache_dir=cache_dir)


def locate_base(base: BaseConfig, cache_dir: str | None = None, weights: bool = True) -> Source:
    """Resolve the base that a checkpoint names.

    Raises:
        ValueError: as `locate`; a name without `/` that is no built-in model's.
    """
    if has_schema(base.id):
        return _from_schema(base.id, cache_dir, weights)
    if "/" not in base.id:  # a name of ours; what is none here may be a later release's, and is not the Hub's either
        return _named_base(registry.built_in(base.id), cache_dir, weights)
    return Source(download(base.id, base.revision, cache_dir, weights), base.id, base.revision)


def find_file(name: str, filename: str, cache_dir: str | None = None) -> Path | None:
    """Return one file of a `hf-hub:` or `local-dir:` source, and of the Hub nothing else.

    None when it can't be had, whatever the reason: who asks for it has another way to go on, which says what is wrong.

    Raises:
        ValueError: as `registry.refuse_own_name`, for there is no other way to go on.
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


def download(repo: str, revision: str | None, cache_dir: str | None, weights: bool = True) -> Path:
    """Bring a Hub repository's small files and safetensors (never pickles) into the cache.

    Raises:
        SourceError: with the Hub's reason and what to do; a large file whose sha256 is not the Hub's, which is removed.
    """
    registry.refuse_own_name(repo)
    patterns = [*SMALL_FILES, *(["*.safetensors"] if weights else [])]
    try:
        known = _stored(repo, cache_dir)
        directory = _fetch(repo, revision, cache_dir, patterns)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if is_refusal(error):  # the Hub said no, the client that the cache has nothing
            raise (told := failed(f"{repo} did not come", repo, revision, error)) from told.__cause__
        raise (told := _not_in_cache(repo, error)) from told.__cause__ or error
    except HUB_ERRORS as error:
        raise (told := failed(f"{repo} did not come", repo, revision, error)) from told.__cause__
    _refuse_damaged(repo, directory, known)
    if weights and not any(directory.glob("*.safetensors")):
        raise SourceError(_without_weights(repo, directory))
    return directory


def _fetch(repo: str, revision: str | None, cache_dir: str | None, patterns: list[str]) -> Path:
    """An adapter's config comes last, so that a download cut short leaves nothing that loads."""
    options = {"cache_dir": cache_dir, "allow_patterns": patterns}
    rest = Path(snapshot_download(repo, revision=revision, ignore_patterns=[CONFIG_FILE], **options))
    return Path(snapshot_download(repo, revision=_commit(rest) or revision, **options))


def _stored(repo: str, cache_dir: str | None) -> frozenset[str]:
    """Names of the contents that the cache holds of a repository: checksums, mostly."""
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blobs = Path(cache_dir or constants.HF_HUB_CACHE).expanduser() / folder / "blobs"
    return frozenset(os.listdir(blobs)) if blobs.is_dir() else frozenset()


def _refuse_damaged(repo: str, directory: Path, known: frozenset[str]) -> None:
    """A base is checked when it comes, as it is large; an adapter whenever it is loaded."""
    adapter = (directory / CONFIG_FILE).is_file()
    damaged = checksums.damaged(directory, frozenset() if adapter else known)
    for path in damaged:
        checksums.remove(path)
    if damaged:
        names = ", ".join(str(path.relative_to(directory)) for path in damaged)
        raise SourceError(
            f"{names} of {repo} did not come as the Hub holds it (another sha256), and was removed from the cache: "
            "try again; if that does not help, a proxy or mirror on the way (HF_ENDPOINT) changes files"
        )


def _not_in_cache(repo: str, error: Exception) -> SourceError:
    if not isinstance(error, IncompleteSnapshotError):
        return failed(f"{repo} did not come", repo, None, error)
    snapshot = getattr(error, "snapshot_path", None)  # huggingface_hub 2.x says which
    if snapshot is not None and not any(Path(snapshot).glob("*.safetensors")):
        return SourceError(_without_weights(repo, Path(snapshot)))
    return SourceError(f"the cache holds {repo} in part only ({error}): go online once, with HF_HUB_OFFLINE unset")


def _without_weights(repo: str, directory: Path) -> str:
    """Offline, huggingface_hub hands out any snapshot where the cache has no list of the repository's files."""
    return (
        f"the cache holds {repo} without weights ({directory} has no safetensors): they were never downloaded, as a "
        "tokenizer needs none, or the repository has none, and no other kind is read. "
        "Go online once, with HF_HUB_OFFLINE unset, to download them"
    )


def _from_schema(name: str, cache_dir: str | None, weights: bool) -> Source:
    if name.startswith(LOCAL):
        return _local(name.removeprefix(LOCAL))
    repo, _, revision = name.removeprefix(HUB).partition("@")
    directory = download(repo, revision or None, cache_dir, weights)
    return Source(directory, repo, _commit(directory) or revision)


def _local(path: str | os.PathLike[str]) -> Source:
    try:
        directory = Path(path).expanduser().resolve()
        is_there, kind = directory.is_dir(), "a file" if directory.exists() else "not there"
    except (OSError, RuntimeError) as error:  # too long a name, links in a circle, nobody's home
        raise SourceError(f"{str(path)[:200]} can't be looked up ({error}); expected a directory") from error
    if not is_there:
        raise SourceError(f"{directory} is {kind}; expected a directory with {CONFIG_FILE} or an LVLM's config.json")
    return Source(directory, f"{LOCAL}{directory}")


def _place(place: registry.Packaged | str, cache_dir: str | None, weights: bool) -> Source:
    if isinstance(place, registry.Packaged):
        return Source(place.directory, place.name)
    return Source(download(place, None, cache_dir, weights), place)


def _named_base(name: str, cache_dir: str | None, weights: bool) -> Source:
    packaged, base, facts = registry.packaged_base(name), registry.MODELS[name].base, registry.facts(name)
    if packaged:
        return Source(packaged, name, dtype=facts.dtype)
    directory = download(base, None, cache_dir, weights)
    return Source(directory, base, _commit(directory), facts.image_size, facts.dtype)


def _commit(directory: Path) -> str | None:
    """The commit of a snapshot directory of the Hub's cache, whose name it is."""
    return directory.name if directory.parent.name == "snapshots" else None
