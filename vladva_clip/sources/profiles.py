"""Profiles: published LVLM embedders as configs, which are data in `assets/profiles/`, or in a JSON file of the user's.

A profile says how its authors embed: templates, positions, pooling, sizes. Each line names its source.
"""

import functools
from dataclasses import dataclass, field, fields
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from vladva_clip.storage import json_files
from vladva_clip.storage.config import FORMAT_VERSION, VladvaConfig, nearest, read_json

if TYPE_CHECKING:
    from vladva_clip.storage.base import Admits

FOLDER = "assets/profiles"
DEFAULT = "default"  # the tag of a profile that states none
_UNSTATED = {"num_image_soft_tokens": None, "num_text_soft_tokens": None, "tokens_template": None}


@dataclass(frozen=True)
class Profile:
    """A published embedder.

    Attributes:
        name: its short name, without slashes.
        config: its VladvaConfig as JSON data, with `family` in place of `base`.
        tags: tag -> the keys of `config.prompt` that it replaces; the default tag stands last.
        repository: its Hub id; "" for a user's own file.
        revision: the commit that the profile was written for; None where none is known.
        license: by the Hub's name for it.
        num_parameters: as published.
        download_gb: size of its weight files, 10^9 bytes.
        transformers: the least release that has its family.
        base: the LVLM of the same shapes (a key of `assets/bases.json`).
        adapter: empty, or of a repository that holds a PEFT adapter alone, `base` and `revision` of the LVLM under it
            (a Hub id and its commit, or `local-dir:PATH` in a user's own file), and the adapter's own `num_parameters`,
            which PEFT stores in float32; `num_parameters` above are those of both, merged.
        admits: what its config.json may say besides what a bare LVLM's may.
        instructions: tag -> the authors' instruction that stands in its template.
        scores, sources, unverified: published figures, where each line comes from, and what could not be checked.
    """

    name: str
    config: dict[str, Any]
    tags: dict[str, dict[str, Any]] = field(default_factory=lambda: {DEFAULT: {}})
    repository: str = ""
    revision: str | None = None
    license: str | None = None
    num_parameters: int | None = None
    download_gb: float | None = None
    transformers: str | None = None
    base: str | None = None
    adapter: dict[str, Any] = field(default_factory=dict)
    admits: dict[str, Any] = field(default_factory=dict)
    instructions: dict[str, str] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    unverified: list[str] = field(default_factory=list)

    @property
    def family(self) -> str:
        """Transformers' model_type."""
        return self.config["family"]

    @property
    def admission(self) -> "Admits":
        """What is accepted of its files besides what a bare LVLM's may say."""
        from vladva_clip.storage.base import Admits  # late: it reads tensors with torch, and a listing needs none

        return Admits(self.family, **self.admits)

    @property
    def default_tag(self) -> str:
        """The tag that `pretrained=None` stands for."""
        return list(self.tags)[-1]

    def config_of(self, tag: str | None = None) -> VladvaConfig:
        """Return the config of a tag, the default one for None, over the profile's own repository.

        Raises:
            ValueError: an unknown tag, or values that `VladvaConfig.from_dict` refuses.
        """
        tag = self.default_tag if tag is None else tag
        if tag not in self.tags:
            raise ValueError(f"unknown tag {tag!r} of the profile {self.name}; valid tags: {', '.join(self.tags)}")
        data = {key: value for key, value in self.config.items() if key != "family"}
        unstated = _UNSTATED if data.get("format_version") == FORMAT_VERSION else {}  # earlier ones have other keys
        prompt = {**unstated, **data["prompt"], **self.tags[tag]}
        if prompt["text_template"] != data["prompt"]["text_template"]:  # all tags share one tokenizer
            prompt["tokens_template"] = data["prompt"]["text_template"]
        base = {"id": self.repository or self.name, "family": self.family, "revision": self.revision}
        return VladvaConfig.from_dict({**data, "base": {**base, "profile": self.packaged_name}, "prompt": prompt})

    @property
    def packaged_name(self) -> str | None:
        """Its name if it comes with the package, so that an adapter can name it; None for a user's own file."""
        return self.name if _packaged().get(self.name) is self else None


def missing_release(profile: Profile) -> str | None:
    """Return the least release of transformers that a profile needs, if the installed one is older; else None."""
    needed = profile.transformers
    installed = Version(metadata.version("transformers")).release  # a development version of it counts as the release
    return needed if needed and installed < Version(needed).release else None


def packaged() -> list[Profile]:
    """Return the profiles that come with the package, by name."""
    return [_packaged()[name] for name in sorted(_packaged())]


def named(name: str) -> Profile:
    """Return a packaged profile; raises ValueError with the nearest names for an unknown one."""
    if name not in _packaged():
        raise ValueError(
            f"unknown profile {name!r}; {nearest(str(name), _packaged())} (or give the path of a JSON file; install "
            "the latest vladva_clip for a profile of a later release)"
        )
    return _packaged()[name]


def of_repository(repository: str) -> Profile | None:
    """Return the packaged profile of a Hub id, whatever its case; None if there is none."""
    return next((one for one in _packaged().values() if one.repository.lower() == repository.lower()), None)


def find(name_or_path: str | Path) -> Profile:
    """Return a packaged profile by its name, or read one from a JSON file (docs/published_models.md).

    Raises:
        ValueError: neither; or the file has unknown or missing keys, or values that no config can have.
    """
    text = str(name_or_path)
    if text in _packaged():
        return _packaged()[text]
    path = Path(text).expanduser()
    if not path.is_file():
        if path.is_dir():
            raise ValueError(f"the profile {path} is a directory; expected a packaged profile's name or a JSON file")
        if path.suffix == ".json":
            raise ValueError(f"the profile {path} does not exist, or is not a file")
        return named(text)
    try:
        profile = _own(read_json(path), path)
        for tag in profile.tags:
            profile.config_of(tag)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no profile ({error}); expected the form of docs/published_models.md") from error
    return profile


def _own(data: dict[str, Any], path: Path) -> Profile:
    if "prompt" in data:  # a config by itself, such as the one beside the weights
        family = (data.get("base") or {}).get("family")
        return Profile(path.stem, {**{key: data[key] for key in data if key != "base"}, "family": family})
    return _build({"name": path.stem, **data})


def _build(data: dict[str, Any]) -> Profile:
    known = [one.name for one in fields(Profile)]
    for key in data:
        if key not in known:
            raise ValueError(f"a profile has the unknown key {key!r:.80}; {nearest(str(key), known)}")
    if not isinstance(data.get("config"), dict) or not isinstance(data["config"].get("family"), str):
        raise ValueError("a profile lacks config, with the family in it")
    tags, admits = data.get("tags", {DEFAULT: {}}), data.get("admits", {})
    if not isinstance(tags, dict) or not tags or not all(isinstance(keys, dict) for keys in tags.values()):
        raise ValueError(f"tags is {tags!r:.80}, expected at least one tag, each with the keys of prompt it replaces")
    if not isinstance(admits, dict) or not set(admits) <= {"model_type", "auto_map"}:
        raise ValueError(f"admits is {admits!r:.80}, expected an object with model_type, auto_map or neither")
    _check_adapter(data.get("adapter", {}))
    return Profile(**data)


def _check_adapter(adapter: Any) -> None:
    valid = isinstance(adapter, dict) and set(adapter) <= {"base", "revision", "num_parameters"}
    if not valid or (adapter and not isinstance(adapter.get("base"), str)):
        raise ValueError(
            f"adapter is {adapter!r:.160}, expected an object with base (the Hub id of the LVLM under the adapter, or "
            "local-dir:PATH) and revision (a commit of it, or null)"
        )


@functools.cache
def _packaged() -> dict[str, Profile]:
    folder = resources.files("vladva_clip").joinpath(FOLDER)  # not a Path: the package may be imported from a zip
    if not folder.is_dir():  # then its packaged models are missing too, which say so when they are asked for
        return {}
    files = [file for file in folder.iterdir() if file.name.endswith(".json")]
    profiles = [_build(json_files.parse(file.read_bytes())) for file in files]
    return {profile.name: profile for profile in sorted(profiles, key=lambda one: one.name)}
