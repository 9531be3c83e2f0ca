"""Name, tag, `hf-hub:`, `local-dir:` -> a local directory."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from vladva_clip.interface.arguments import user_path
from vladva_clip.sources import registry
from vladva_clip.sources.download import Hub, commit_of
from vladva_clip.sources.hub_errors import SourceError
from vladva_clip.storage import adapter_files
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import HUB, LOCAL, BaseConfig, VladvaConfig

CONFIG_FILE = adapter_files.CONFIG
EXPORT_FILE = "vladva_export.json"  # of a plain LVLM whose vocabulary holds the prompts (docs/export.md)
BASE_FILE = "vladva_base.json"  # of a bare LVLM with templates of its own, such as the one it was pre-trained with


@dataclass(frozen=True)
class Source:
    """A local directory with an adapter (`vladva_config.json`) or a bare LVLM (`config.json`).

    Pass the same Source on to read its files once. base_id and revision name it inside other checkpoints; image_size
    and dtype are the registry's for this model.
    """

    directory: Path
    base_id: str
    revision: str | None = None
    image_size: int | None = None  # pixels
    dtype: str | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether the directory holds an adapter rather than a bare LVLM."""
        return (self.directory / CONFIG_FILE).is_file()

    @property
    def is_export(self) -> bool:
        """Whether the directory holds an LVLM with the prompts folded into its vocabulary."""
        return not self.is_adapter and (self.directory / EXPORT_FILE).is_file()

    @functools.cached_property
    def files(self) -> BaseFiles:
        """The directory, opened as a base: each file is read once, whoever asks."""
        return BaseFiles(self.directory)

    @property
    def config_file(self) -> str | None:
        """The name of the file that states the config of an adapter, an export or a base; None where there is none."""
        found = [name for name in (CONFIG_FILE, EXPORT_FILE, BASE_FILE) if (self.directory / name).is_file()]
        return found[0] if found else None

    @functools.cached_property
    def stated(self) -> VladvaConfig | None:
        """The config that an adapter, an export or a base states, read once; None for a bare LVLM that states none.

        Raises:
            ValueError: as `adapter_files.read_config`; of the others, what `BaseFiles.json` and `VladvaConfig` refuse.
        """
        if self.is_adapter:
            return adapter_files.read_config(self.directory)
        name = self.config_file
        return VladvaConfig.from_dict(self.files.json(name)) if name else None


def has_schema(name: str) -> bool:
    """Whether a model name is a `hf-hub:` or `local-dir:` source."""
    return str(name).startswith((HUB, LOCAL))


def locate(
    model_name: str,
    pretrained: str | os.PathLike[str] | None = None,
    cache_dir: str | None = None,
    weights: bool = True,
    download: bool = True,
) -> Source:
    """Resolve what a user wrote to a local directory, downloading when needed.

    Args:
        model_name: a name of `list_models()`, `hf-hub:ORG/REPO[@REVISION]` or `local-dir:PATH`.
        pretrained: a tag, or a directory with an adapter; ignored for `hf-hub:` and `local-dir:`.
        cache_dir: the Hub's cache, the client's default for None.
        weights: False leaves weight files on the Hub (tokenizers need none).
        download: False takes only what is on this machine, without checking that its weights are here too.

    Raises:
        ValueError: unknown names and tags, paths that don't exist, a refusal by the Hub, no network.
        NotHereError: with `download=False`, a model that would have to be downloaded.
    """
    hub = Hub(cache_dir, weights, download)
    if has_schema(model_name):
        return _from_schema(model_name, hub)
    entry = registry.find(model_name)
    if entry.source is not None:
        registry.find_tag(model_name, pretrained or None)
        return _from_schema(entry.source, hub)
    if isinstance(pretrained, os.PathLike):
        return _local(pretrained)
    if pretrained and pretrained not in entry.tags and (os.path.sep in pretrained or os.path.exists(pretrained)):
        return _local(pretrained)
    place = entry.tags[registry.find_tag(model_name, pretrained or None)]
    return _named_base(registry.canonical(model_name), hub) if place is None else _place(place, hub)


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
            raise ValueError(f"{name} does not exist or is not a directory")
    if Path(name).is_dir():
        if revision:
            raise ValueError(f"revision {revision!r} was given with the directory {name}; only Hub ids have revisions")
        return _local(name)
    if "/" in name and not has_schema(name):
        name = f"{HUB}{name}"
    return locate(f"{name}@{revision}" if revision else name, cache_dir=cache_dir)


def locate_base(base: BaseConfig, cache_dir: str | None = None, weights: bool = True, download: bool = True) -> Source:
    """Resolve the base that a checkpoint names (arguments as `locate`).

    Raises:
        ValueError: as `locate`; a name without `/` that is not a built-in model's.
        NotHereError: as `locate`.
    """
    hub = Hub(cache_dir, weights, download)
    if has_schema(base.id):
        return _from_schema(base.id, hub)
    if "/" not in base.id:  # one of our names; if we don't know it, a later release may, but it is never the Hub's
        return _named_base(registry.built_in(base.id), hub)
    return Source(hub.directory(base.id, base.revision), base.id, base.revision)


def _from_schema(name: str, hub: Hub) -> Source:
    if name.startswith(LOCAL):
        return _local(name.removeprefix(LOCAL))
    repo, _, revision = name.removeprefix(HUB).partition("@")
    directory = hub.directory(repo, revision or None)
    return Source(directory, repo, commit_of(directory) or revision)


def _local(path: str | os.PathLike[str]) -> Source:
    try:
        directory = Path(path).expanduser().resolve()
        is_there, kind = directory.is_dir(), "a file" if directory.exists() else "not there"
    except (OSError, RuntimeError) as error:  # a name that is too long, circular links, an unknown user's ~
        raise SourceError(f"{str(path)[:200]} can't be looked up ({error}); expected a directory") from error
    if not is_there:
        raise SourceError(f"{directory} is {kind}; expected a directory with {CONFIG_FILE} or an LVLM's config.json")
    return Source(directory, f"{LOCAL}{directory}")


def _place(place: registry.Packaged | str, hub: Hub) -> Source:
    if isinstance(place, registry.Packaged):
        return Source(place.directory, place.name)
    return Source(hub.directory(place, None), place)


def _named_base(name: str, hub: Hub) -> Source:
    facts = registry.facts(name)
    if packaged := registry.packaged_base(name):
        return Source(packaged, name, dtype=facts.dtype)
    base = registry.MODELS[name].base
    directory = hub.directory(base, None)
    return Source(directory, base, commit_of(directory), facts.image_size, facts.dtype)
