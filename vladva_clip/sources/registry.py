"""Model names and tags -> base and source; lookups only, nothing is downloaded or built."""

import functools
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vladva_clip.storage.config import HUB, LOCAL, nearest, read_json

ASSETS = Path(__file__).parents[1] / "assets"
TRAINING_FREE = "training_free"
REGISTERED = "registered"  # the one tag of a registered name
VARIABLE = "VLADVA_CLIP_MODELS"
# by these parts of a name clients know other kinds of models (clip_benchmark, open_clip's training code)
RESERVED = ("coca", "siglip", "nllb-clip", "genlip", "genlap", "openai")


class UnknownModelError(ValueError, RuntimeError):
    """An unknown model or tag: ValueError to us, RuntimeError to code written for open_clip."""


class NotInstalledError(ValueError, RuntimeError):
    """Files that belong to the package are not there: ValueError to us, RuntimeError to code written for open_clip."""


@dataclass(frozen=True)
class Packaged:
    """A folder below `assets/`, named `MODEL/PART`; it comes with the package or not at all, never from the Hub."""

    name: str

    @property
    def directory(self) -> Path:
        """Where it is.

        Raises:
            NotInstalledError: it isn't there.
        """
        if (directory := ASSETS / self.name).is_dir():
            return directory
        raise NotInstalledError(
            f"{directory} is missing: this installation of vladva_clip is incomplete. Install it again (pip install "
            "--force-reinstall --no-deps vladva-clip); if it is imported from a zip, unpack that, as models are files"
        )


@dataclass(frozen=True)
class Entry:
    """What a model name stands for.

    base: Hub id of the base LVLM, or None when it is packaged. tags: tag -> packaged adapter or an adapter's Hub id;
    None is the bare base. The default tag is the last one (clients take the last listed). source: of a
    registered name, `local-dir:PATH` or `hf-hub:ORG/REPO[@REVISION]`; it settles all the rest.
    """

    base: str | None
    tags: dict[str, Packaged | str | None]
    dtype: str | None
    architecture: dict[str, Any] | None = None  # the base's config.json, as far as it decides shapes
    image_size: int | None = None  # pixels, where the base leaves the choice open
    source: str | None = None

    @property
    def default_tag(self) -> str:
        """The tag that `pretrained=None` stands for."""
        return list(self.tags)[-1]


def _llava(width: int, depth: int, heads: int, mlp: int) -> dict[str, Any]:
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    vision |= {"intermediate_size": 4096, "patch_size": 14, "image_size": 336, "projection_dim": 768}
    text = {"model_type": "llama", "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    text |= {"num_key_value_heads": heads, "intermediate_size": mlp, "vocab_size": 32064, "rms_norm_eps": 1e-5}
    text |= {"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    return {
        "model_type": "llava",
        "image_token_index": 32000,
        "pad_token_id": 32001,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "vision_config": vision,
        "text_config": text,
    }


def _qwen2_vl_2b() -> dict[str, Any]:
    vision = {"model_type": "qwen2_vl", "depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16}
    vision |= {"mlp_ratio": 4, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
    text = {"model_type": "qwen2_vl_text", "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12}
    text |= {"num_key_value_heads": 2, "intermediate_size": 8960, "vocab_size": 151936, "rms_norm_eps": 1e-6}
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]}
    text |= {"max_position_embeddings": 32768, "tie_word_embeddings": True, "rope_parameters": rope}
    return {
        "model_type": "qwen2_vl",
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "tie_word_embeddings": True,
        "vision_config": vision,
        "text_config": text,
    }


# Shapes: VladVA's three backbones, from their published config files.
MODELS: dict[str, Entry] = {
    "vladva-tiny": Entry(None, {"base": None, "scenes": Packaged("vladva-tiny/scenes")}, "float32"),
    "vladva-7b": Entry("llava-hf/llava-1.5-7b-hf", {TRAINING_FREE: None}, "bfloat16", _llava(4096, 32, 32, 11008)),
    "vladva-13b": Entry("llava-hf/llava-1.5-13b-hf", {TRAINING_FREE: None}, "bfloat16", _llava(5120, 40, 40, 13824)),
    "vladva-2b": Entry("Qwen/Qwen2-VL-2B-Instruct", {TRAINING_FREE: None}, "bfloat16", _qwen2_vl_2b(), image_size=448),
}
ALIASES = {"vladva": "vladva-7b"}


def register(name: str, path: str | os.PathLike[str]) -> None:
    """Give an adapter or an LVLM a model name of its own, here and in open_clip, until the process ends.

    The environment variable VLADVA_CLIP_MODELS does the same for every process: `NAME=PATH,NAME=hf-hub:ORG/REPO,...`.
    The name's one tag is "registered". Registering a registered name again replaces it.

    Args:
        name: letters, digits, `_`, `.` and `-`. Clients put names into file names and split them at other signs.
        path: a directory, `local-dir:PATH` or `hf-hub:ORG/REPO[@REVISION]`.

    Raises:
        ValueError: a name of another form or already taken, a directory that isn't there.
    """
    source = _source(path)
    if source.startswith(LOCAL) and not Path(source.removeprefix(LOCAL)).is_dir():
        raise ValueError(
            f"{path} is no directory, so {name!r} can't stand for it; a repository of the Hub is written {HUB}ORG/REPO"
        )
    entry = _entry(name, source)
    for observer in observers:
        observer(name, entry)
    _registered[name] = entry


# called with what is about to be registered, which they may refuse with a ValueError
observers: list[Callable[[str, Entry], None]] = []
_registered: dict[str, Entry] = {}


def list_models() -> list[str]:
    """Return every model name, aliases and registered ones included."""
    return sorted([*_models(), *ALIASES])


def list_pretrained(as_str: bool = False) -> list[Any]:
    """Return (name, tag) pairs, or "name:tag" strings; the default tag of a model comes last."""
    pairs = [(name, tag) for name in list_models() for tag in find(name).tags]
    return [f"{name}:{tag}" for name, tag in pairs] if as_str else pairs


def canonical(model_name: str) -> str:
    """Return the name behind an alias.

    Raises:
        UnknownModelError: no such model; the nearest names are shown.
    """
    name = ALIASES.get(model_name, model_name)
    if name not in _models():
        raise UnknownModelError(
            f"unknown model {model_name!r}; {nearest(str(model_name), list_models())} "
            "(or a source: local-dir:PATH, hf-hub:ORG/REPO[@REVISION])"
        )
    return name


def built_in(base_id: str) -> str:
    """Return the built-in model that an adapter's base names, an alias resolved; registered names are none.

    Raises:
        UnknownModelError: no such model, in this release.
    """
    name = ALIASES.get(base_id, base_id)
    if name not in MODELS:
        raise UnknownModelError(
            f"the base {base_id!r} is not a model of this vladva_clip ({', '.join(MODELS)}), nor a Hub id ORG/REPO: "
            "install the latest release, or mend the adapter's config"
        )
    return name


def find(model_name: str) -> Entry:
    """Return the entry of a name or alias; raises UnknownModelError."""
    return _models()[canonical(model_name)]


def find_tag(model_name: str, tag: str | None) -> str:
    """Return the tag as it is listed, or the default one for None. As in open_clip, `A-B` is read as `a_b`.

    Raises:
        UnknownModelError: no such tag; the valid ones are listed.
    """
    tags = find(model_name).tags
    if tag is None:
        return find(model_name).default_tag
    for spelling in (tag, str(tag).lower().replace("-", "_")):
        if spelling in tags:
            return spelling
    raise UnknownModelError(f"unknown tag {tag!r} of {model_name}; valid tags: {', '.join(tags)}")


def packaged_base(model_name: str) -> Path | None:
    """Return the directory of a base that is shipped in the package, None for one from the Hub.

    Raises:
        NotInstalledError: it is shipped, and isn't there.
    """
    entry = find(model_name)
    is_packaged = entry.base is None and entry.source is None
    return Packaged(f"{canonical(model_name)}/base").directory if is_packaged else None


def refuse_own_name(repo: str) -> None:
    """Refuse to look for one of our own names on the Hub, where it could be anybody's.

    Args:
        repo: what would be looked for there, with or without `@REVISION`.

    Raises:
        UnknownModelError: a model's name, or anything below a packaged model's name.
    """
    owner, _, rest = repo.partition("@")[0].lower().partition("/")
    if owner in ([name for name, entry in MODELS.items() if entry.base is None] if rest else [*MODELS, *ALIASES]):
        raise UnknownModelError(
            f"{repo!r} is not looked for on the Hub: {owner} is a model of vladva_clip's own, and a repository of that "
            f"name would be somebody else's. The name is {owner!r} alone; its tags: {', '.join(find(owner).tags)}"
        )


def architecture(model_name: str) -> dict[str, Any]:
    """Return the config.json of a built-in model's base (a packaged base's own file, or the shapes as published).

    Raises:
        NotInstalledError: a packaged base that isn't there.
    """
    if directory := packaged_base(model_name):
        return read_json(directory / "config.json")
    return json.loads(json.dumps(find(model_name).architecture))


def _models() -> dict[str, Entry]:
    return {**MODELS, **_from_environment(), **_registered}


@functools.cache
def _from_environment() -> dict[str, Entry]:
    """Read VLADVA_CLIP_MODELS once. Its directories are looked for when they are loaded: they may be on no disk now."""
    entries = {}
    for item in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        name, _, place = map(str.strip, item.partition("="))
        if not place:
            raise ValueError(
                f"{VARIABLE} holds {item!r}, expected NAME=PATH or NAME={HUB}ORG/REPO, with commas between"
            )
        if name in entries:
            raise ValueError(f"{VARIABLE} gives {name!r} two places, {entries[name].source} and {_source(place)}")
        try:
            entries[name] = _entry(name, _source(place))
        except ValueError as error:
            raise ValueError(f"{VARIABLE}: {error}") from error
    return entries


def _entry(name: str, source: str) -> Entry:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ValueError(f"the model name {name!r} must be made of letters, digits, '_', '.' and '-'")
    if name in MODELS or name in ALIASES:
        raise ValueError(f"the model name {name!r} is taken by one of vladva_clip's own; choose another")
    if found := [word for word in RESERVED if word in name.lower()]:
        raise ValueError(f"the model name {name!r} holds {found[0]!r}, by which clients know other models")
    return Entry(None, {REGISTERED: None}, None, source=source)


def _source(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if text.startswith(HUB):
        return text
    return f"{LOCAL}{Path(text.removeprefix(LOCAL)).expanduser().absolute()}"
