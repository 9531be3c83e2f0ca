"""Model names and tags -> base and source. Lookups only: nothing is downloaded or built."""

import copy
import functools
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vladva_clip.sources import bare_names, bases, profiles
from vladva_clip.sources.bases import BaseFacts
from vladva_clip.sources.profiles import Profile
from vladva_clip.storage.config import HUB, LOCAL, read_json

ASSETS = Path(__file__).parents[1] / "assets"
TRAINING_FREE = "training_free"
REGISTERED = "registered"  # the one tag of a registered name
VARIABLE = "VLADVA_CLIP_MODELS"
# clients (clip_benchmark, open_clip's training code) take a name with one of these parts for another kind of model
RESERVED = ("coca", "siglip", "nllb-clip", "genlip", "genlap", "openai")


class UnknownModelError(ValueError, RuntimeError):
    """An unknown model or tag: a ValueError to us, a RuntimeError to code written for open_clip."""


@dataclass(frozen=True)
class Packaged:
    """A folder under `assets/`, named `MODEL/PART`. It comes with the package, never from the Hub."""

    name: str

    @property
    def directory(self) -> Path:
        """Its path.

        Raises:
            bases.NotInstalledError: the folder is missing.
        """
        if (directory := ASSETS / self.name).is_dir():
            return directory
        raise bases.missing(directory)


@dataclass(frozen=True)
class Entry:
    """What a model name stands for.

    base: Hub id of the base LVLM, or None when the base is packaged. tags: tag -> packaged adapter or an adapter's Hub
    id, or None for the bare base. The last tag is the default (clients take the last one listed). source: for a
    registered name, `local-dir:PATH` or `hf-hub:ORG/REPO[@REVISION]`, which alone decides what is loaded. profile: of a
    published embedder.
    """

    base: str | None
    tags: dict[str, Packaged | str | None]
    source: str | None = None
    profile: Profile | None = None

    @property
    def default_tag(self) -> str:
        """The tag that `pretrained=None` stands for."""
        return list(self.tags)[-1]


# VladVA's three backbones, the packaged model and bare LVLMs; the facts about their bases are in assets/bases.json
MODELS: dict[str, Entry] = {
    "vladva-tiny": Entry(None, {"base": None, "scenes": Packaged("vladva-tiny/scenes")}),
    "vladva-7b": Entry("llava-hf/llava-1.5-7b-hf", {TRAINING_FREE: None}),
    "vladva-13b": Entry("llava-hf/llava-1.5-13b-hf", {TRAINING_FREE: None}),
    "llava-next-8b": Entry("llava-hf/llama3-llava-next-8b-hf", {TRAINING_FREE: None}),
    "llava-onevision-0.5b": Entry("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", {TRAINING_FREE: None}),
    "llava-onevision-7b": Entry("llava-hf/llava-onevision-qwen2-7b-ov-hf", {TRAINING_FREE: None}),
    "vladva-2b": Entry("Qwen/Qwen2-VL-2B-Instruct", {TRAINING_FREE: None}),
    "qwen2.5-vl-3b": Entry("Qwen/Qwen2.5-VL-3B-Instruct", {TRAINING_FREE: None}),
    "qwen2.5-vl-7b": Entry("Qwen/Qwen2.5-VL-7B-Instruct", {TRAINING_FREE: None}),
    "qwen3-vl-2b": Entry("Qwen/Qwen3-VL-2B-Instruct", {TRAINING_FREE: None}),
    "qwen3-vl-4b": Entry("Qwen/Qwen3-VL-4B-Instruct", {TRAINING_FREE: None}),
    "qwen3-vl-8b": Entry("Qwen/Qwen3-VL-8B-Instruct", {TRAINING_FREE: None}),
    "internvl3-1b": Entry("OpenGVLab/InternVL3-1B-hf", {TRAINING_FREE: None}),
    "internvl3-2b": Entry("OpenGVLab/InternVL3-2B-hf", {TRAINING_FREE: None}),
    "internvl3-8b": Entry("OpenGVLab/InternVL3-8B-hf", {TRAINING_FREE: None}),
    "smolvlm-256m": Entry("HuggingFaceTB/SmolVLM-256M-Instruct", {TRAINING_FREE: None}),
    "smolvlm-500m": Entry("HuggingFaceTB/SmolVLM-500M-Instruct", {TRAINING_FREE: None}),
    "smolvlm-2.2b": Entry("HuggingFaceTB/SmolVLM2-2.2B-Instruct", {TRAINING_FREE: None}),
}
MODELS |= {one.name: Entry(one.repository, dict.fromkeys(one.tags), profile=one) for one in profiles.packaged()}
ALIASES = {"vladva": "vladva-7b"}


def register(name: str, path: str | os.PathLike[str]) -> None:
    """Give an adapter or an LVLM its own model name, here and in open_clip, until the process ends.

    The environment variable VLADVA_CLIP_MODELS does the same for every process: `NAME=PATH,NAME=hf-hub:ORG/REPO,...`.
    The name has one tag, "registered". Registering a name again replaces the earlier entry.

    Args:
        name: letters, digits, `_`, `.` and `-`, since clients put names into file names and split them at other signs.
        path: a directory, `local-dir:PATH` or `hf-hub:ORG/REPO[@REVISION]`.

    Raises:
        ValueError: an invalid name, a name that is taken, or a directory that doesn't exist.
    """
    source = _source(path)
    if source.startswith(LOCAL) and not Path(source.removeprefix(LOCAL)).is_dir():
        raise ValueError(
            f"{path} is not a directory, so it can't be registered as {name!r}; "
            f"for a Hub repository, write {HUB}ORG/REPO"
        )
    entry = _entry(name, source)
    for observer in observers:
        observer(name, entry)
    _registered[name] = entry


# called with what is about to be registered; they may refuse it with a ValueError
observers: list[Callable[[str, Entry], None]] = []
_registered: dict[str, Entry] = {}


def list_models() -> list[str]:
    """Return every model name, including aliases and registered names."""
    return sorted([*_models(), *ALIASES])


def list_pretrained(as_str: bool = False) -> list[Any]:
    """Return (name, tag) pairs, or "name:tag" strings; the default tag of a model comes last."""
    pairs = [(name, tag) for name in list_models() for tag in find(name).tags]
    return [f"{name}:{tag}" for name, tag in pairs] if as_str else pairs


def canonical(model_name: str) -> str:
    """Return the model name that an alias stands for; other names are returned as they are.

    Raises:
        UnknownModelError: no such model; the message shows the nearest names, or the source that was probably meant.
    """
    name = ALIASES.get(model_name, model_name)
    if name not in _models():
        raise unknown(model_name, list_models())
    return name


def unknown(model_name: str | os.PathLike[str], known: Collection[str]) -> UnknownModelError:
    """Return the error for a name that is not among the known ones, with the spellings that would work."""
    text = os.fspath(model_name) if isinstance(model_name, os.PathLike) else str(model_name)
    return UnknownModelError(f"unknown model {text!r:.200}; {bare_names.hint(text, known, repositories())}")


def repositories() -> dict[str, str]:
    """Return the Hub ids of the built-in models' bases and published embedders, in lower case -> the model's name."""
    ids = {name: entry.profile.repository if entry.profile else entry.base for name, entry in MODELS.items()}
    return {repository.lower(): name for name, repository in ids.items() if repository}


def built_in(base_id: str) -> str:
    """Return the built-in model that an adapter's base id names, with aliases resolved; registered names don't count.

    Raises:
        UnknownModelError: this release has no such model.
    """
    name = ALIASES.get(base_id, base_id)
    if name not in MODELS:
        raise UnknownModelError(
            f"the base {base_id!r} is neither a model of this vladva_clip ({', '.join(MODELS)}) nor a Hub id ORG/REPO: "
            "install the latest release, or correct the adapter's config"
        )
    return name


def find(model_name: str) -> Entry:
    """Return the entry of a name or alias; raises UnknownModelError."""
    return _models()[canonical(model_name)]


def find_tag(model_name: str, tag: str | None) -> str:
    """Return a tag as it is listed; None means the default tag. As in open_clip, `A-B` also matches `a_b`.

    Raises:
        UnknownModelError: no such tag; the message lists the valid ones.
    """
    tags = find(model_name).tags
    if tag is None:
        return find(model_name).default_tag
    for spelling in (tag, str(tag).lower().replace("-", "_")):
        if spelling in tags:
            return spelling
    raise UnknownModelError(f"unknown tag {tag!r} of {model_name}; valid tags: {', '.join(tags)}")


def packaged_base(model_name: str) -> Path | None:
    """Return the directory of a base that ships with the package; None for a base on the Hub.

    Raises:
        bases.NotInstalledError: the packaged directory is missing.
    """
    entry = find(model_name)
    is_packaged = entry.base is None and entry.source is None
    return Packaged(f"{canonical(model_name)}/base").directory if is_packaged else None


def refuse_own_name(repo: str) -> None:
    """Refuse to look up one of our own names on the Hub, where anybody could own a repository of that name.

    Args:
        repo: the repository to look up, with or without `@REVISION`.

    Raises:
        UnknownModelError: a model's name, or anything under a packaged model's name.
    """
    owner, _, rest = repo.partition("@")[0].lower().partition("/")
    if owner in ([name for name, entry in MODELS.items() if entry.base is None] if rest else [*MODELS, *ALIASES]):
        raise UnknownModelError(
            f"{repo!r} is not looked for on the Hub: {owner} is one of vladva_clip's models, and a repository of that "
            f"name would be somebody else's. Use the name {owner!r} alone; its tags: {', '.join(find(owner).tags)}"
        )


def architecture(model_name: str) -> dict[str, Any]:
    """Return the config.json of a built-in model's base: a packaged base's own file, or the published shapes.

    Raises:
        bases.NotInstalledError: the package's own files are missing.
    """
    if directory := packaged_base(model_name):
        return read_json(directory / "config.json")
    return copy.deepcopy(facts(model_name).config)


def facts(model_name: str) -> BaseFacts:
    """Return what is known of a built-in model's base before any of its files is here.

    Raises:
        UnknownModelError: not a built-in model.
        bases.NotInstalledError: the package's own files are missing.
    """
    name = built_in(model_name)
    if (profile := MODELS[name].profile) is None:
        return bases.find(MODELS[name].base or name)
    size, dtype = profile.config["image"]["size"], profile.config["dtype"]
    own = {"license": profile.license, "num_parameters": profile.num_parameters, "dtype": dtype, "image_size": size}
    return replace(bases.find(profile.base), **own)


def license_of(base_id: str) -> str | None:
    """Return the license of a base, by Hub id or, for a packaged one, by name; None where it isn't known."""
    if (profile := profiles.of_repository(base_id)) is not None:
        return profile.license
    facts = bases.find(base_id)
    return facts and facts.license


def forbids_commercial_use(license: str) -> bool:
    """Whether a license, by the Hub's name for it, is for research or other non-commercial use only."""
    return "-nc" in license.lower() or "research" in license.lower()


def _models() -> dict[str, Entry]:
    return {**MODELS, **_from_environment(), **_registered}


@functools.cache
def _from_environment() -> dict[str, Entry]:
    """Read VLADVA_CLIP_MODELS once. Its directories are checked only when they are loaded: they may not exist yet."""
    entries = {}
    for item in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        name, _, place = map(str.strip, item.partition("="))
        if not place:
            raise ValueError(
                f"{VARIABLE} contains {item!r}, expected NAME=PATH or NAME={HUB}ORG/REPO, separated by commas"
            )
        if name in entries:
            raise ValueError(f"{VARIABLE} gives two places for {name!r}: {entries[name].source} and {_source(place)}")
        try:
            entries[name] = _entry(name, _source(place))
        except ValueError as error:
            raise ValueError(f"{VARIABLE}: {error}") from error
    return entries


def _entry(name: str, source: str) -> Entry:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ValueError(f"the model name {name!r} may only contain letters, digits, '_', '.' and '-'")
    if name in MODELS or name in ALIASES:
        raise ValueError(f"the model name {name!r} is taken by a built-in model of vladva_clip; choose another")
    if found := [word for word in RESERVED if word in name.lower()]:
        raise ValueError(f"the model name {name!r} contains {found[0]!r}, which clients take for another kind of model")
    return Entry(None, {REGISTERED: None}, source)


def _source(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if text.startswith(HUB):
        return text
    return f"{LOCAL}{Path(text.removeprefix(LOCAL)).expanduser().absolute()}"
