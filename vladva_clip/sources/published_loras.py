"""Published embedders that are a LoRA alone: one repository holds PEFT's two files, another one the LVLM under it."""

import re
from dataclasses import replace
from pathlib import Path

from vladva_clip.sources.download import Hub, NotHereError
from vladva_clip.sources.hub_errors import SourceError
from vladva_clip.sources.source import Source
from vladva_clip.storage import weights
from vladva_clip.storage.adapter_files import LORA_CONFIG
from vladva_clip.storage.config import LOCAL
from vladva_clip.storage.lora_files import LoraFiles

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def over_base(source: Source, hub: Hub) -> Source:
    """Return a source of a LoRA as the LVLM under it, with the LoRA beside it; any other source as it is.

    A directory that the profile reads without its LoRA, because its user has merged it, is any other source.

    Args:
        source: of any kind; its profile says whether it may be a LoRA, and on which LVLM.
        hub: how to get the LVLM.

    Raises:
        SourceError: the LVLM can't be found, which is named beside the adapter; the adapter names another LVLM than the
            profile; or whole weights lie beside it, so that nobody knows what is meant.
        NotHereError: the LVLM would have to be downloaded; it names the adapter's repository.
    """
    if not (source.profile and source.profile.adapter and (source.directory / LORA_CONFIG).is_file()):
        return source
    if whole := [name for name in (weights.SINGLE, weights.INDEX) if (source.directory / name).is_file()]:
        raise SourceError(
            f"{source.directory} holds an adapter ({LORA_CONFIG}) and whole weights ({whole[0]}), expected one of the "
            "two: keep them in two directories"
        )
    return replace(source, directory=_base(source, hub), lora=source.directory)


def _base(source: Source, hub: Hub) -> Path:
    adapter, name = source.profile.adapter, source.profile.name
    place = _stated(source) or adapter["base"]
    if place.startswith(LOCAL):
        if not (directory := Path(place.removeprefix(LOCAL)).expanduser()).is_dir():
            raise SourceError(f"the base {directory} of the adapter {source.directory} is not a directory")
        return directory.resolve()
    try:
        return hub.directory(place, adapter.get("revision"))
    except NotHereError as error:
        raise NotHereError(source.base_id, f"{place}, on which the adapter of {name} is put,") from error
    except SourceError as error:
        raise SourceError(f"of {name} the adapter is here ({source.directory}), but not its base: {error}") from error


def _stated(source: Source) -> str | None:
    """Return where a local adapter says that its base lies on this disk, as PEFT does; None if it names a Hub id."""
    stated, expected = LoraFiles(source.directory).config.get("base_model_name_or_path"), source.profile.adapter["base"]
    if not isinstance(stated, str):
        return None
    if source.base_id.startswith(LOCAL) and Path(stated).is_absolute() and Path(stated).is_dir():
        return f"{LOCAL}{stated}"
    ids = _HUB_ID.fullmatch(stated) and _HUB_ID.fullmatch(expected)
    if ids and stated.lower() != expected.lower():
        raise SourceError(
            f"{source.directory / LORA_CONFIG} was made for the base {stated}, but the profile {source.profile.name} "
            f"puts it on {expected}: give a profile that belongs to it"
        )
    return None
