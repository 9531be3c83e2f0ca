"""The config of a bare LVLM, from its own files: training-free mode. An export, and some bases, state their own."""

import dataclasses
import json
from pathlib import Path

from vladva_clip.encoder.admission.base_config import processor_config, read_base_config
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import contents, embedder_signs
from vladva_clip.sources.locate import Source
from vladva_clip.storage import whole
from vladva_clip.storage.base import CONFIG, BaseFiles
from vladva_clip.storage.config import BaseConfig, PromptConfig, VladvaConfig, prompt_from_dict, prompt_to_dict
from vladva_clip.storage.encoding_config import EncodingConfig

PROMPT_FILE = "vladva_prompt.json"  # beside a tokenizer that was saved by itself


def describe_base(source: Source, image_size: int | None = None) -> VladvaConfig:
    """Derive the config of a bare LVLM from its own files (training-free mode), or return the one that it states.

    Args:
        source: where the LVLM is.
        image_size: pixels, for an LVLM whose size is not fixed; the profile's, the registry's or the family's for None.

    Raises:
        ValueError: a missing file, values that no model can have, an unsupported family, or a published embedder
            without a profile.
    """
    contents.require_model(source.directory, source.base_id)
    if source.stated is not None:
        return _of_this_source(source, source.stated, image_size)
    embedder_signs.refuse(source.directory, source.base_id, source.files.config)
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
    return VladvaConfig(
        base=BaseConfig(base_id, family.family),
        prompt=family.prompt_config(),
        image=family.image_config(base_config, processor, image_size),
        embed_dim=family.width_of(base_config),
        encoding=EncodingConfig(
            attention="bidirectional" if family.attends_both_ways else "causal",
            projection="trunk" if family.projects else None,
        ),
        dtype=family.default_dtype,
    )


def require_family(source: Source) -> None:
    """Refuse files of another family than their profile's, before anything else about them is refused.

    Raises:
        ValueError: the family that was found, and the profile's.
    """
    found, profile = source.files.config.get("model_type"), source.profile
    if profile is not None and found != profile.family:
        raise ValueError(
            f"{source.files.path(CONFIG)}: model_type is {found!r:.80}, but the profile {profile.name} is one of the "
            f"family {profile.family}: give a profile of that family, or one that admits this model_type"
        )


def prompt_of(files: BaseFiles) -> PromptConfig | None:
    """Return the templates of a directory: those it states, or a bare LVLM's family's; None for a plain tokenizer.

    Raises:
        ValueError: as `describe_base`.
    """
    source = Source(files.directory, "")
    if source.config_file and source.stated is not None:
        return source.stated.prompt
    if files.has(CONFIG):  # the model's own templates, whatever is beside it
        embedder_signs.refuse(files.directory, str(files.directory), files.config)
        return backbone_class(files.config.get("model_type")).prompt_config()
    return prompt_from_dict(files.json(PROMPT_FILE)) if files.has(PROMPT_FILE) else None


def write_prompt(directory: Path, prompt: PromptConfig) -> None:
    """Write the templates beside a tokenizer that is saved by itself; where a model is, its own templates hold."""
    if Source(directory, "").config_file or (directory / CONFIG).is_file():
        return
    text = json.dumps(prompt_to_dict(prompt), indent=2, sort_keys=True) + "\n"
    whole.write(directory / PROMPT_FILE, text.encode())


def _of_this_source(source: Source, config: VladvaConfig, image_size: int | None) -> VladvaConfig:
    """Return the config that an export, a base or its profile states, with the source itself as the base.

    An export names the base it came from, but once loaded it is a base of its own. Its templates use tokens with the
    soft prompts as embeddings. A published embedder's size is its user's choice, its width that of its files: a profile
    also reads a smaller model of the same kind.
    """
    base = BaseConfig(source.base_id, config.base.family, source.revision, profile=config.base.profile)
    config = config.replace(base=base)
    if source.profile is not None:
        require_family(source)
        width = backbone_class(config.base.family).width_of(read_base_config(source.files))
        config = config.replace(embed_dim=width)
    if image_size is None or source.profile is None:
        return config
    return config.replace(image=dataclasses.replace(config.image, size=image_size))
