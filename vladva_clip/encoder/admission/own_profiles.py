"""Bases that only a profile of the user's own admits: an adapter can name a packaged profile, and no other."""

from vladva_clip.encoder.backbones import FAMILIES
from vladva_clip.sources import profiles
from vladva_clip.storage.base import CONFIG, Admits, BaseFiles
from vladva_clip.storage.config import VladvaConfig


def refuse_unread(config: VladvaConfig, base: BaseFiles) -> None:
    """Refuse a base that an adapter without a profile's name can't be loaded over.

    An adapter keeps what a profile says of templates and encoding, but not what it admits of the base's files.

    Args:
        config: the adapter's.
        base: its base.

    Raises:
        ValueError: config.json has a model_type of no family, or names code; with what to write there. Or the base is
            itself a published LoRA.
    """
    if base.lora and not config.base.profile:
        raise ValueError(
            f"the base {config.base.id} is an adapter, and only the profile says on which LVLM it is put, but the new "
            "adapter names no packaged profile. Merge it once, and start from that: load it with "
            "vladva_clip.create_model, then model.visual.backbone.lvlm.save_pretrained(DIRECTORY), and copy the "
            f"tokenizer's and the processor's files from {base.directory}"
        )
    if not base.has(CONFIG):
        return
    kind, family = base.config.get("model_type"), config.base.family
    found = [] if kind in FAMILIES else [f"the model_type {kind!r:.80}"]
    found += ["an auto_map"] if base.config.get("auto_map") else []
    if found:
        raise ValueError(
            f"{base.path(CONFIG)} has {' and '.join(found)}, which only a profile admits, and the adapter names no "
            "packaged one. If it was made with a profile of your own, give the base, or a copy of it, a config.json "
            f"with the model_type {family!r} and without auto_map. Otherwise get the base's files again"
        )


def admission(config: VladvaConfig) -> Admits | None:
    """Return what is admitted of the files of a model's base; None for what a bare LVLM's may say.

    Raises:
        ValueError: the config names an unknown profile.
    """
    return profiles.named(config.base.profile).admission if config.base.profile else None
