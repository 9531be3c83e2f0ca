"""From a local directory to the parts of a model: backbone, prompts, soft prompts, LoRA."""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from vladva_clip.encoder import lora
from vladva_clip.encoder.admission.base_config import (
    generation_config,
    processor_config,
    read_base_config,
    vocabulary_size,
)
from vladva_clip.encoder.admission.base_files import attempt, load_tokenizer
from vladva_clip.encoder.admission.base_fit import (
    check_builds,
    check_image_size,
    check_memory,
    check_sizes,
    check_weights,
)
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.precision import torch_dtype
from vladva_clip.encoder.prompts import Prompts, SoftPrompt
from vladva_clip.interface import extras
from vladva_clip.sources.locate import CONFIG_FILE, EXPORT_FILE, Source, locate_base
from vladva_clip.storage import adapter_files, weights
from vladva_clip.storage.allowed_files import refuse_links_out
from vladva_clip.storage.config import LOCAL, BaseConfig, PromptConfig, VladvaConfig, read_json


@dataclass
class Parts:
    """What VladvaCLIP is composed of. `adapter` is the stored LoRA (config and tensors) once it has been merged."""

    backbone: Backbone
    prompts: Prompts
    image_soft_prompt: SoftPrompt
    text_soft_prompt: SoftPrompt
    config: VladvaConfig
    tokenizer: object
    base_directory: Path
    adapter: tuple[dict, dict[str, torch.Tensor]] | None


def load_parts(
    source: Source,
    precision: str | None = None,
    merge_lora: bool = True,
    load_weights: bool = True,
    image_size: int | None = None,
    cache_dir: str | None = None,
    four_bits_on: torch.device | None = None,
) -> Parts:
    """Build the parts of an adapter directory or of a bare LVLM (training-free mode).

    Args:
        source: where the files are.
        precision: a word of `precision_words`; the config's own for None.
        merge_lora: add LoRA to the weights once; False leaves it trainable.
        load_weights: False builds the architecture with random weights.
        image_size: pixels; only a bare LVLM that leaves the choice open takes another than its own.
        cache_dir: the Hub's cache.
        four_bits_on: the device that takes the LLM's linear layers in 4 bits, to train a LoRA over them (QLoRA).

    Raises:
        ValueError: what is wrong with which file, and what to do; 4 bits without what they need.
    """
    if four_bits_on is not None:
        _check_four_bits(merge_lora, load_weights)
    config, base, saved = settle(source, image_size, cache_dir, load_weights)
    tokenizer, prompts, config = load_prompts(config, base.directory)
    backbone = _backbone(base.directory, config, precision, load_weights, four_bits_on)
    soft = {side: _soft_prompt(backbone, prompts, side, saved) for side in ("image", "text")}
    adapter = _put_lora(backbone, saved, merge_lora)
    return Parts(backbone, prompts, soft["image"], soft["text"], config, tokenizer, base.directory, adapter)


def settle(
    source: Source, image_size: int | None = None, cache_dir: str | None = None, load_weights: bool = True
) -> tuple[VladvaConfig, Source, adapter_files.StoredAdapter | None]:
    """Find what a source stands for, its base checked, before any weight of it is loaded (arguments as `load_parts`).

    Returns:
        The config with the base's fingerprint, the base, and the adapter's content (None for a bare LVLM).

    Raises:
        ValueError: as `load_parts`.
    """
    stated = adapter_files.read_config(source.directory) if source.is_adapter else None
    base = locate_base_of(source, stated, cache_dir, load_weights) if stated else source
    config = stated or describe_base(base, image_size)
    _check_image_size(config, image_size)
    check_image_size(base.directory, config, source.directory / (CONFIG_FILE if stated else EXPORT_FILE))
    if load_weights:
        check_sizes(base.directory, read_base_config(base.directory))
    built = check_builds(base.directory, config.image.size)
    if load_weights:
        check_weights(base.directory, built)
    config = _with_fingerprint(config, base.directory, load_weights)
    _check_family(config, base.directory)
    _check_width(config, built)
    saved = adapter_files.read(source.directory, _fits(built)) if stated else None  # the base settles what may be read
    return config, base, saved


def _fits(built: Backbone) -> adapter_files.Fits:
    return lambda lora_config, shapes: lora.check_fit(built.lvlm, lora_config, shapes)


def locate_base_of(
    adapter: Source, config: VladvaConfig, cache_dir: str | None = None, load_weights: bool = True
) -> Source:
    """Resolve the base that an adapter names.

    Raises:
        ValueError: as `sources.locate_base`; an adapter from the Hub that names a place on this disk.
    """
    if config.base.id.startswith(LOCAL) and not adapter.base_id.startswith(LOCAL):
        raise ValueError(
            f"the adapter {adapter.base_id} names the base {config.base.id}, a place on the disk of who wrote it; from "
            "the Hub an adapter may name a Hub id only. Download it, and load it as local-dir:PATH if that base is here"
        )
    return locate_base(config.base, cache_dir, load_weights)


def load_prompts(config: VladvaConfig, directory: Path) -> tuple[PreTrainedTokenizerBase, Prompts, VladvaConfig]:
    """Load a base's tokenizer and tokenise the templates: both, and the config with the soft slots counted.

    Raises:
        ValueError: no tokenizer, or one that doesn't fit the config.
    """
    tokenizer = load_tokenizer(directory)
    family = backbone_class(config.base.family)
    build = functools.partial(Prompts.build, tokenizer, config.prompt, family.visual_span, family.starts_with_bos)
    prompts = attempt(build, directory, "templates", ours=True)
    _check_ids(prompts, directory)
    return tokenizer, prompts, _with_counts(config, prompts)


def _check_ids(prompts: Prompts, directory: Path) -> None:
    """Refuse templates whose ids the embedding doesn't have, and a config.json that has another id for images."""
    base_config = read_base_config(directory)
    stated = base_config.get("image_token_index", base_config.get("image_token_id", prompts.visual_slot))
    if stated != prompts.visual_slot:
        raise ValueError(
            f"config.json in {directory} says that images have the token {stated}, its tokenizer gives them "
            f"{prompts.visual_slot}: the two don't belong together; get the base's files again"
        )
    largest = max(*prompts.image_row(1), *prompts.text.bos, *prompts.text.soft_ids, prompts.eot_token_id)
    rows = vocabulary_size(base_config)
    if rows is not None and largest >= rows:
        raise ValueError(
            f"the tokenizer of {directory} has ids up to {largest} in the templates, its embedding has {rows} rows: "
            "the two don't belong together; get the base's files again"
        )


def read_config(directory: Path, name: str = CONFIG_FILE) -> VladvaConfig:
    """Read an adapter's config alone, without its tensors, or (EXPORT_FILE) an export's.

    Raises:
        ValueError: a file that is missing, no JSON or of another form.
    """
    if name == CONFIG_FILE:
        return adapter_files.read_config(directory)
    refuse_links_out(directory, (name,))
    return VladvaConfig.from_dict(read_json(directory / name))


def describe_base(source: Source, image_size: int | None = None) -> VladvaConfig:
    """Derive the config of a bare LVLM from its own files: the training-free mode. An export states its own.

    Raises:
        ValueError: a file that is missing or holds what no model can be, or a family that isn't supported.
    """
    if not (source.directory / "config.json").is_file():
        found = ", ".join(sorted(item.name for item in source.directory.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{source.directory} holds neither vladva_config.json nor an LVLM's config.json; found {found}"
        )
    if source.is_export:
        return _describe_export(source)
    base_config, processor = read_base_config(source.directory), processor_config(source.directory)
    config = describe(base_config, processor, source.base_id, image_size or source.image_size)
    base = BaseConfig(config.base.id, config.base.family, source.revision)
    return config.replace(base=base, dtype=source.dtype or config.dtype)


def describe(base_config: dict, processor: dict | None, base_id: str, image_size: int | None = None) -> VladvaConfig:
    """Derive the training-free config of a base.

    Args:
        base_config: the content of its config.json.
        processor: its image processor's settings; None only for a description of a base whose files are not here.
        base_id: its name in the config.
        image_size: pixels, where the base leaves the choice open.

    Raises:
        ValueError: a family that isn't supported, values of the image processor or a size that can't be.
    """
    family = backbone_class(base_config["model_type"])
    text_config = base_config.get("text_config") or {}
    return VladvaConfig(
        base=BaseConfig(base_id, family.family),
        prompt=PromptConfig(family.image_template, family.text_template),
        image=family.image_config(base_config, processor, image_size),
        embed_dim=text_config.get("hidden_size", base_config.get("hidden_size", 4096)),  # as Llama's own default
        dtype=family.default_dtype,
    )


def _describe_export(source: Source) -> VladvaConfig:
    """Read what an export says of itself: its templates are spelled in tokens whose embeddings are the soft prompts.

    The base that it names is where it came from; loaded, an export is a base of its own.
    """
    config = read_config(source.directory, EXPORT_FILE)
    return config.replace(base=BaseConfig(source.base_id, config.base.family, source.revision))


def _check_image_size(config: VladvaConfig, image_size: int | None) -> None:
    if image_size not in (None, config.image.size):
        raise ValueError(
            f"image size {image_size} pixels was asked for, this checkpoint means {config.image.size}: its geometry "
            "belongs to it and no argument changes it"
        )


def _with_fingerprint(config: VladvaConfig, directory: Path, load_weights: bool) -> VladvaConfig:
    if not load_weights:
        return config
    found, stated = weights.fingerprint(directory), config.base.fingerprint
    if stated not in (None, found):
        raise ValueError(
            f"the adapter was trained on the base {config.base.id} with fingerprint {stated}, but {directory} has "
            f"{found}: another base or another revision (the adapter names {config.base.revision}). Get that one"
        )
    return config.replace(base=BaseConfig(config.base.id, config.base.family, config.base.revision, found))


def _with_counts(config: VladvaConfig, prompts: Prompts) -> VladvaConfig:
    counts = len(prompts.image.soft_ids), len(prompts.text.soft_ids)
    return config.replace(prompt=PromptConfig(config.prompt.image_template, config.prompt.text_template, *counts))


def _check_four_bits(merge_lora: bool, load_weights: bool) -> None:
    if merge_lora or not load_weights:
        raise ValueError(
            "a base in 4 bits is there to train a LoRA over its weights: merge_lora=False, load_weights=True"
        )
    extras.require("bitsandbytes", "accelerate", purpose="a base in 4 bits (model.train=qlora)")


def _backbone(
    directory: Path,
    config: VladvaConfig,
    precision: str | None,
    load_weights: bool,
    four_bits_on: torch.device | None,
) -> Backbone:
    dtype = torch_dtype(config, precision)
    if not load_weights:
        check_memory(directory, architecture(config, directory, dtype), dtype)
        return architecture(config, directory, dtype, "cpu")
    files = read_base_config(directory), generation_config(directory)
    return backbone_class(config.base.family).from_directory(directory, *files, dtype, four_bits_on)


def architecture(config: VladvaConfig, directory: Path, dtype: torch.dtype, device: str = "meta") -> Backbone:
    """Build the architecture of a settled config's base, without its weights (random, or none on `meta`).

    Raises:
        ValueError: a base of another width than the config's.
    """
    backbone = backbone_class(config.base.family).from_config(read_base_config(directory), dtype, device)
    _check_width(config, backbone)
    return backbone


def _check_family(config: VladvaConfig, directory: Path) -> None:
    found = read_base_config(directory)["model_type"]
    if found != config.base.family:
        raise ValueError(
            f"the adapter was made for a base of the family {config.base.family!r}, {directory} holds {found!r}"
        )


def _check_width(config: VladvaConfig, backbone: Backbone) -> None:
    if backbone.embed_dim != config.embed_dim:
        raise ValueError(f"the base's width is {backbone.embed_dim}, the config says embed_dim {config.embed_dim}")


def _soft_prompt(
    backbone: Backbone, prompts: Prompts, side: str, saved: adapter_files.StoredAdapter | None
) -> SoftPrompt:
    if saved:
        return SoftPrompt(saved.soft_prompt[side].to(backbone.device))
    ids = torch.tensor(getattr(prompts, side).soft_ids, device=backbone.device)
    return SoftPrompt(backbone.embed_tokens(ids))


def _put_lora(
    backbone: Backbone, saved: adapter_files.StoredAdapter | None, merge_lora: bool
) -> tuple[dict, dict[str, torch.Tensor]] | None:
    if saved is None or saved.lora_config is None:
        return None
    lora.inject(backbone.lvlm, saved.lora_config, saved.lora)
    if not merge_lora:
        return None
    lora.merge(backbone.lvlm)
    base = saved.config.base
    return lora.stored_config(saved.lora_config, saved.lora, base.id, base.revision), saved.lora
