"""Name, tag, `hf-hub:`, `local-dir:` -> a local directory."""

import logging
import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from vladva_clip.interface.arguments import user_path
from vladva_clip.sources import bare_names, contents, profiles, published_loras, registry
from vladva_clip.sources.download import Hub, commit_of
from vladva_clip.sources.hub_errors import SourceError
from vladva_clip.sources.profiles import Profile
from vladva_clip.sources.source import BASE_FILE as BASE_FILE
from vladva_clip.sources.source import CONFIG_FILE, Source
from vladva_clip.sources.source import EXPORT_FILE as EXPORT_FILE
from vladva_clip.storage.adapter_files import LORA_CONFIG
from vladva_clip.storage.base import CONFIG
from vladva_clip.storage.config import HUB, LOCAL, BaseConfig

_log = logging.getLogger(__name__)
_warned: set[str] = set()


def has_schema(name: str) -> bool:
    """Whether a model name is a `hf-hub:` or `local-dir:` source."""
    return str(name).startswith((HUB, LOCAL))


def locate(
    model_name: str,
    pretrained: str | os.PathLike[str] | None = None,
    cache_dir: str | None = None,
    weights: bool = True,
    download: bool = True,
    profile: str | os.PathLike[str] | None = None,
) -> Source:
    """Resolve what a user wrote to a local directory, downloading when needed.

    Args:
        model_name: a name of `list_models()`, `hf-hub:ORG/REPO[@REVISION]` or `local-dir:PATH`.
        pretrained: a tag, or a directory with an adapter; for `hf-hub:` and `local-dir:`, a tag of the profile, and
            ignored without one.
        cache_dir: the Hub's cache, the client's default for None.
        weights: False leaves weight files on the Hub (tokenizers need none).
        download: False takes only what is on this machine, without checking that its weights are here too.
        profile: as which published embedder an LVLM from `hf-hub:`, `local-dir:` or a registered name is read: a name
            of a packaged profile, or a JSON file; None for the packaged profile of its Hub id, if there is one.

    Raises:
        ValueError: unknown names, tags and profiles, a profile for an adapter, paths that don't exist, a directory
            without a model, a refusal by the Hub, no network.
        NotHereError: with `download=False`, a model that would have to be downloaded.
    """
    return _with_something(_locate(model_name, pretrained, Hub(cache_dir, weights, download), profile))


def _locate(
    model_name: str, pretrained: str | os.PathLike[str] | None, hub: Hub, profile: str | os.PathLike[str] | None
) -> Source:
    if has_schema(model_name):
        return _read_as(_from_schema(model_name, hub), pretrained, profile, hub)
    entry = registry.find(model_name)
    if entry.source is not None:
        registry.find_tag(model_name, pretrained or None)
        return _read_as(_from_schema(entry.source, hub), None, profile, hub)
    if profile is not None:
        raise ValueError(
            f"profile={str(profile)!r:.120} was given with the name {model_name!r}, which decides how a model is read; "
            "a profile goes with hf-hub:ORG/REPO, local-dir:PATH or a registered name"
        )
    if isinstance(pretrained, os.PathLike):
        return _local(pretrained)
    if pretrained and has_schema(pretrained):
        raise SourceError(
            f"pretrained is {pretrained!r:.200}, expected a tag or an adapter's directory; a source such as this is "
            "given as the model's name"
        )
    if pretrained and pretrained not in entry.tags and (os.path.sep in pretrained or os.path.exists(pretrained)):
        return _local(pretrained)
    tag = registry.find_tag(model_name, pretrained or None)
    if entry.profile is not None:
        return replace(_profiled(entry.profile, hub, None), tag=tag)
    place = entry.tags[tag]
    return _named_base(registry.canonical(model_name), hub) if place is None else _place(place, hub)


def from_name(
    name: str,
    cache_dir: str | None = None,
    revision: str | None = None,
    profile: str | os.PathLike[str] | None = None,
    weights: bool = True,
) -> Source:
    """Resolve a directory, a Hub id `org/name`, or any name that `locate` takes.

    Args:
        name: what the user wrote.
        cache_dir: the Hub's cache, the client's default for None.
        revision: branch, tag or commit of a Hub id.
        profile: as for `locate`.
        weights: as for `locate`.

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
        return locate(f"{LOCAL}{name}", cache_dir=cache_dir, weights=weights, profile=profile)
    if bare_names.is_path(name) and not has_schema(name):
        raise SourceError(f"{Path(name).absolute()} does not exist or is not a directory")
    if "/" in name and not has_schema(name):
        name = f"{HUB}{name}"
    return locate(f"{name}@{revision}" if revision else name, cache_dir=cache_dir, weights=weights, profile=profile)


def _with_something(source: Source) -> Source:
    contents.require_something(source.directory, source.base_id)
    return source


def locate_base(base: BaseConfig, cache_dir: str | None = None, weights: bool = True, download: bool = True) -> Source:
    """Resolve the base that a checkpoint names (arguments as `locate`).

    Raises:
        ValueError: as `locate`; a name without `/` that is not a built-in model's.
        NotHereError: as `locate`.
    """
    hub = Hub(cache_dir, weights, download)
    profile = profiles.named(base.profile) if base.profile else None
    if has_schema(base.id):
        source = _from_schema(base.id, hub)
        return published_loras.over_base(replace(source, profile=profile), hub) if profile else source
    if "/" not in base.id:  # one of our names; if we don't know it, a later release may, but it is never the Hub's
        return _named_base(registry.built_in(base.id), hub)
    fetch = hub.lora if profile and profile.adapter else hub.directory
    source = Source(fetch(base.id, base.revision), base.id, base.revision, profile=profile)
    return published_loras.over_base(source, hub)


def _from_schema(name: str, hub: Hub) -> Source:
    if name.startswith(LOCAL):
        return _local(name.removeprefix(LOCAL))
    repo, _, revision = name.removeprefix(HUB).partition("@")
    if (profile := profiles.of_repository(repo)) is not None:
        return _profiled(profile, hub, revision or None)
    directory = hub.directory(repo, revision or None)
    return Source(directory, repo, commit_of(directory) or revision)


def _require_family(profile: Profile) -> None:
    if needed := profiles.missing_release(profile):
        raise SourceError(
            f"{profile.name} needs transformers {needed} or later, which has its family {profile.family}; installed is "
            f"{metadata.version('transformers')}: pip install --upgrade transformers"
        )


def _read_as(
    source: Source, tag: str | os.PathLike[str] | None, profile: str | os.PathLike[str] | None, hub: Hub
) -> Source:
    """Return a source of an LVLM as read under a profile, the given one or its own."""
    found = profiles.find(profile) if profile is not None else source.profile
    if profile is not None and source.is_adapter:
        raise SourceError(
            f"profile={str(profile)!r:.120} was given with an adapter, {source.directory}, whose own config says how "
            "it is read; leave it out"
        )
    if found is None or source.is_adapter:
        return source
    _require_family(found)
    source = replace(source, profile=found, tag=_tag_of(found, str(tag)) if tag else None)
    return published_loras.over_base(source, hub)


def _tag_of(profile: Profile, tag: str) -> str:
    """Return a tag as the profile spells it."""
    for spelling in (tag, tag.lower()):
        if spelling in profile.tags:
            return spelling
    raise registry.UnknownModelError(
        f"unknown tag {tag!r:.120} of the profile {profile.name}; valid tags: {', '.join(profile.tags)}"
    )


def _profiled(profile: Profile, hub: Hub, revision: str | None) -> Source:
    """Get a published embedder: the revision asked for or, first, the one that its profile was written for."""
    _require_family(profile)
    fetch, sign = (hub.lora, LORA_CONFIG) if profile.adapter else (hub.directory, CONFIG)
    try:
        directory = fetch(profile.repository, revision or profile.revision)
    except SourceError:
        if revision or not profile.revision or hub.newest_here(profile.repository, sign) is None:
            raise
        directory = fetch(profile.repository, None)
    found = commit_of(directory) or revision
    if profile.revision not in (None, found):
        _warn_once(
            f"{profile.repository} is at the revision {found}, its profile {profile.name} was made for "
            f"{profile.revision}: if the authors have changed weights or templates since, features may be wrong"
        )
    return published_loras.over_base(Source(directory, profile.repository, found, profile=profile), hub)


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _log.warning(message)


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
