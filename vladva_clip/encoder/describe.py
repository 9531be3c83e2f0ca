"""The config of a bare LVLM, from its own files: training-free mode. An export states its own."""

from vladva_clip.encoder.admission.base_config import processor_config, read_base_config
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources.locate import Source
from vladva_clip.storage.base import CONFIG
from vladva_clip.storage.config import BaseConfig, PromptConfig, VladvaConfig


def describe_base(source: Source, image_size: int | None = None) -> VladvaConfig:
    """Derive the config of a bare LVLM from its own files (training-free mode), or return the one an export states.

    Args:
        source: where the LVLM is.
        image_size: pixels, for an LVLM whose size is not fixed; the registry's choice or the family's for None.

    Raises:
        ValueError: a missing file, values that no model can have, or an unsupported family.
    """
    if not source.files.has(CONFIG):
        found = ", ".join(sorted(item.name for item in source.directory.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{source.directory} holds neither vladva_config.json nor an LVLM's config.json; found {found}"
        )
    if source.is_export:
        return _describe_export(source)
    base_config, processor = read_base_config(source.files), processor_config(source.files)
    config = describe(base_config, processor, source.base_id, image_size or source.image_size)
    base = BaseConfig(config.base.id, config.base.family, source.revision)
    return config.replace(base=base, dtype=source.dtype or config.dtype)


def describe(base_config: dict, processor: dict | None, base_id: str, image_size: int | None = None) -> VladvaConfig:
    """Derive the training-free config of a base.

    Args:
        base_config: the content of its config.json.
        processor: its image processor's settings; None only to describe a base whose files are not here.
        base_id: its name in the config.
        image_size: pixels, for a base whose size is not fixed.

    Raises:
        ValueError: an unsupported family, or impossible image processor values or sizes.
    """
    family = backbone_class(base_config["model_type"])
    text_config = base_config.get("text_config") or {}
    return VladvaConfig(
        base=BaseConfig(base_id, family.family),
        prompt=PromptConfig(family.image_template, family.text_template),
        image=family.image_config(base_config, processor, image_size),
        embed_dim=text_config.get("hidden_size", base_config.get("hidden_size", 4096)),  # Llama's own default
        dtype=family.default_dtype,
    )


def _describe_export(source: Source) -> VladvaConfig:
    """Return the config that an export states, whose templates use tokens with the soft prompts as embeddings.

    The base in it is where the export came from; once loaded, an export is a base of its own.
    """
    config = source.stated
    return config.replace(base=BaseConfig(source.base_id, config.base.family, source.revision))
