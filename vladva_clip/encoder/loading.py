"""Turn a local directory into the parts of a model: backbone, prompts, soft prompts, LoRA."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from vladva_clip.encoder import four_bits, lora, published_lora
from vladva_clip.encoder.admission import own_profiles
from vladva_clip.encoder.admission.base_config import (
    generation_config,
    read_base_config,
    vocabulary_size,
)
from vladva_clip.encoder.admission.base_fit import (
    check_builds,
    check_family,
    check_image_size,
    check_memory,
    check_sizes,
    check_weights,
    check_width,
    lacks_head,
)
from vladva_clip.encoder.admission.processors import attempt, load_tokenizer
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.describe import describe_base
from vladva_clip.encoder.precision import torch_dtype
from vladva_clip.encoder.prompts import Prompts, SoftPrompt
from vladva_clip.sources.locate import Source, locate_base
from vladva_clip.storage import adapter_files
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import LOCAL, VladvaConfig


@dataclass
class Parts:
    """The parts of a VladvaCLIP.

    adapter: the stored LoRA (config and tensors) if it has been merged. base_lora: where the LoRA lies that the base, a
    published embedder, came with; it has been merged too.
    """

    backbone: Backbone
    prompts: Prompts
    image_soft_prompt: SoftPrompt
    text_soft_prompt: SoftPrompt
    config: VladvaConfig
    tokenizer: object
    base_directory: Path
    adapter: tuple[dict, dict[str, torch.Tensor]] | None
    base_lora: Path | None = None


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
        merge_lora: merge the LoRA into the weights; False leaves it trainable.
        load_weights: False builds the architecture with random weights.
        image_size: pixels; only an LVLM whose size is not fixed, bare or published as an embedder, takes another.
        cache_dir: the Hub's cache.
        four_bits_on: the device for the LLM's linear layers in 4 bits, to train a LoRA over them (QLoRA).

    Raises:
        ValueError: what is wrong with which file, and what to do; 4 bits with `merge_lora`, without weights, or over a
            published LoRA.
    """
    if four_bits_on is not None:
        four_bits.check(merge_lora, load_weights)
    config, base, saved = open_checked(source, image_size, cache_dir, load_weights)
    if four_bits_on is not None:
        four_bits.refuse_lora(base.base_id, bool(base.lora))
    tokenizer, prompts, config = load_prompts(config, base.files)
    backbone = _backbone(base.files, config, precision, load_weights, four_bits_on)
    soft = {side: _soft_prompt(backbone, prompts, side, saved) for side in ("image", "text")}
    adapter = _put_lora(backbone, saved, merge_lora)
    return Parts(backbone, prompts, soft["image"], soft["text"], config, tokenizer, base.directory, adapter, base.lora)


def open_checked(
    source: Source, image_size: int | None = None, cache_dir: str | None = None, load_weights: bool = True
) -> tuple[VladvaConfig, Source, adapter_files.StoredAdapter | None]:
    """Locate and check the base of a source, then read its adapter, before any of the base's weights are loaded.

    The arguments are those of `load_parts`.

    Returns:
        The config with the base's fingerprint; the base; the adapter's content, None for a bare LVLM.

    Raises:
        ValueError: as `load_parts`.
    """
    stated = source.stated if source.is_adapter else None
    base = locate_base_of(source, stated, cache_dir, load_weights) if stated else source
    if stated:
        own_profiles.refuse_unread(stated, base.files)
    config = stated or describe_base(base, image_size)
    _check_image_size(config, image_size)
    check_image_size(base.files, config, source.stated_in)
    built = _checked(base.files, config, load_weights)
    config = _with_fingerprint(config, base.files, load_weights)
    check_family(config, base.files, source.stated_in)
    check_width(config, built)
    # last, since the base decides which tensors may be read
    saved = adapter_files.read(source.directory, _fits(built), stated) if stated else None
    return config, base, saved


def _checked(base: BaseFiles, config: VladvaConfig, load_weights: bool) -> Backbone:
    """Check a base's config.json and, to load them, its weight files; the base on the meta device."""
    if load_weights:
        check_sizes(base)
    built = check_builds(base, config.image.size, _lacks_head(base, config, load_weights))
    if load_weights:
        check_weights(base, built)
        published_lora.check(base, built, config)
    return built


def _lacks_head(base: BaseFiles, config: VladvaConfig, load_weights: bool = True) -> bool:
    return lacks_head(read_base_config(base), config, base if load_weights else None)


def _fits(built: Backbone) -> adapter_files.Fits:
    return lambda lora_config, shapes: lora.check_fit(built.lvlm, lora_config, shapes)


def locate_base_of(
    adapter: Source,
    config: VladvaConfig,
    cache_dir: str | None = None,
    load_weights: bool = True,
    download: bool = True,
) -> Source:
    """Resolve the base that an adapter names.

    Args:
        adapter: where the adapter is.
        config: what it states.
        cache_dir: the Hub's cache.
        load_weights: False leaves the base's weight files on the Hub.
        download: as for `sources.locate.locate`.

    Raises:
        ValueError: as `sources.locate.locate_base`; an adapter from the Hub that names a place on this disk.
    """
    if config.base.id.startswith(LOCAL) and not adapter.base_id.startswith(LOCAL):
        raise ValueError(
            f"the adapter {adapter.base_id} names the base {config.base.id}, a place on its author's disk; from "
            "the Hub an adapter may name a Hub id only. Download it, and load it as local-dir:PATH if that base is here"
        )
    return locate_base(config.base, cache_dir, load_weights, download)


def load_prompts(config: VladvaConfig, base: BaseFiles) -> tuple[PreTrainedTokenizerBase, Prompts, VladvaConfig]:
    """Load a base's tokenizer and tokenize the templates.

    Returns:
        The tokenizer, the tokenized templates, and the config with the number of soft slots filled in.

    Raises:
        ValueError: no tokenizer, or one that doesn't fit the config.
    """
    tokenizer = load_tokenizer(base)
    family = backbone_class(config.base.family)
    visual = config.prompt.visual_span or family.visual_span
    build = functools.partial(Prompts.build, tokenizer, config.prompt, visual, family.starts_with_bos)
    prompts = attempt(build, base.directory, "templates", ours=True)
    _check_ids(prompts, base)
    return tokenizer, prompts, _with_counts(config, prompts)


def _check_ids(prompts: Prompts, base: BaseFiles) -> None:
    """Refuse templates with ids beyond the embedding, and a config.json with another id for images."""
    base_config = read_base_config(base)
    stated = base_config.get("image_token_index", base_config.get("image_token_id", prompts.visual_slot))
    if stated != prompts.visual_slot:
        raise ValueError(
            f"config.json in {base.directory} states the token {stated} for images, its tokenizer has "
            f"{prompts.visual_slot}: the two don't belong together; get the base's files again"
        )
    ids = *prompts.image_row(1), *prompts.text.before, *prompts.text.suffix, *prompts.second_turn, prompts.eot_token_id
    largest = max(ids)
    rows = vocabulary_size(base_config)
    if rows is not None and largest >= rows:
        raise ValueError(
            f"the tokenizer of {base.directory} gives the templates ids up to {largest}, but the embedding has {rows} "
            "rows: the two don't belong together; get the base's files again"
        )


def _check_image_size(config: VladvaConfig, image_size: int | None) -> None:
    if image_size not in (None, config.image.size):
        raise ValueError(
            f"image size {image_size} pixels was requested, but this model takes {config.image.size}: its geometry is "
            "fixed, and no argument changes it"
        )


def _with_fingerprint(config: VladvaConfig, base: BaseFiles, load_weights: bool) -> VladvaConfig:
    if not load_weights:
        return config
    found, stated = base.fingerprint, config.base.fingerprint
    if stated not in (None, found):
        raise ValueError(
            f"the adapter was trained on the base {config.base.id} with fingerprint {stated}, but {base.directory} "
            f"has {found}: another base or another revision (the adapter names {config.base.revision}). Get that one"
        )
    return config.replace(base=replace(config.base, fingerprint=found))


def _with_counts(config: VladvaConfig, prompts: Prompts) -> VladvaConfig:
    image, text = len(prompts.image.soft_ids), len(prompts.text.soft_ids)
    return config.replace(prompt=replace(config.prompt, num_image_soft_tokens=image, num_text_soft_tokens=text))


def _backbone(
    base: BaseFiles,
    config: VladvaConfig,
    precision: str | None,
    load_weights: bool,
    four_bits_on: torch.device | None,
) -> Backbone:
    dtype = torch_dtype(config, precision)
    if not load_weights:
        check_memory(base, architecture(config, base, dtype, load_weights=False), dtype)
        return architecture(config, base, dtype, "cpu", False)
    admitted, headless = (read_base_config(base), generation_config(base)), _lacks_head(base, config)
    family = backbone_class(config.base.family)
    backbone = family.from_directory(base.directory, *admitted, dtype, four_bits_on, headless)
    published_lora.merge(base, backbone.lvlm)
    return backbone


def architecture(
    config: VladvaConfig, base: BaseFiles, dtype: torch.dtype, device: str = "meta", load_weights: bool = True
) -> Backbone:
    """Build the architecture of a checked base with random weights, or with none on `meta`.

    Args:
        config: as `open_checked` returned it.
        base: the base.
        dtype: of the weights.
        device: of the weights.
        load_weights: False for a base whose weight files are not at hand (see `lacks_head`).

    Raises:
        ValueError: the base's width is not the config's.
    """
    family, headless = backbone_class(config.base.family), _lacks_head(base, config, load_weights)
    backbone = family.from_config(read_base_config(base), dtype, device, headless)
    check_width(config, backbone)
    return backbone


def _soft_prompt(
    backbone: Backbone, prompts: Prompts, side: str, saved: adapter_files.StoredAdapter | None
) -> SoftPrompt:
    if saved:
        found = saved.soft_prompt[side]
        if found.shape[1] != backbone.hidden_dim:
            raise ValueError(
                f"the adapter's {side} soft prompt has the width {found.shape[1]}, the LLM {backbone.hidden_dim}: "
                "they don't belong together; get the files again"
            )
        return SoftPrompt(found.to(backbone.device))
    ids = torch.tensor(getattr(prompts, side).soft_ids, dtype=torch.long, device=backbone.device)
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
