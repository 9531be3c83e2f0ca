"""Export a model: adapter and base -> one plain directory, from finding the source to the last check."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vladva_clip import __version__
from vladva_clip.encoder import lora
from vladva_clip.encoder.admission.base_config import processor_config, read_base_config
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.describe import describe_base
from vladva_clip.encoder.loading import architecture, load_prompts, open_checked
from vladva_clip.encoder.precision import torch_dtype
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.export import chat, configs, processor, readers, sentence_transformers, shards
from vladva_clip.export.directory import check_place, new_export
from vladva_clip.export.slots import Slots, add_slots, enlarge_head, fill_rows, slot_templates
from vladva_clip.export.tensors import Tensors
from vladva_clip.interface import precision_words
from vladva_clip.interface.arguments import user_path
from vladva_clip.sources import registry
from vladva_clip.sources.locate import EXPORT_FILE, Source, from_name, locate
from vladva_clip.storage.adapter_files import StoredAdapter
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import LOCAL, VladvaConfig
from vladva_clip.storage.tensor_names import EMBEDDING, HEAD


def export_model(
    name_or_path: str | Path,
    output: str | Path,
    precision: str | torch.dtype | None = None,
    max_shard_size: str | int = shards.MAX_SHARD_SIZE,
    overwrite: bool = False,
    cache_dir: str | None = None,
    pretrained: str | None = None,
    profile: str | Path | None = None,
    untrusted_texts: bool = False,
    **renamed: Any,
) -> Path:
    """Write a merged model that transformers, sentence-transformers and vLLM load without this package.

    The LoRA is merged, and each soft slot becomes a special token whose vocabulary row is the slot's vector. At most
    one shard is in memory at a time. Nothing has the final name until everything is written and checked.

    Args:
        name_or_path: the directory of an adapter or of a bare LVLM (hand-written prompts), or a name that
            `create_model` takes.
        output: the directory to write.
        precision: of the weights, in `create_model`'s words ("fp32", "bf16", ...); None means the model's own.
        max_shard_size: largest size of one weight file, such as "5GB" or a number of bytes.
        overwrite: replace an earlier export in `output`; refused if it has other files.
        cache_dir: the Hub's cache.
        pretrained: a tag of a built-in name or of a profile, such as "retrieval"; None means the default one.
        profile: as which published embedder the LVLM in a directory or Hub repository is read: a profile's name, or a
            JSON file (docs/published_models.md).
        untrusted_texts: sentence-transformers takes every string for a text. Otherwise it opens one that is the path
            or the address of a picture. Pictures are then passed as chat messages only.
        renamed: no keyword is valid; `dtype`, the precision's name in earlier versions, gets a helpful error.

    Returns:
        The absolute path of the directory.

    Raises:
        ValueError: the source can't be loaded or exported, or the output exists; the message says what to do.
        TypeError: an unknown keyword.
        OSError: the disk is full or not writable.
    """
    precision_words.refuse_other_names(renamed)
    if renamed:
        raise TypeError(f"export_model has no argument {next(iter(renamed))!r}")
    output = user_path(output).absolute()
    word = precision_words.optional("precision", precision)
    check_place(output, overwrite)
    find = functools.partial(_source, str(name_or_path), cache_dir, pretrained, profile)
    _refuse_before_download(find(weights=False))
    source = find()
    config, base, saved = open_checked(source, cache_dir=cache_dir)
    config = config.replace(dtype=precision_words.DTYPES[word] if word else config.dtype)
    _refuse_other_geometry(config, base.files)
    _refuse_within(output, source.directory, base.directory)
    with new_export(output, overwrite) as scratch:
        _write(scratch, config, base.files, saved, max_shard_size)
        sentence_transformers.write(scratch, config.embed_dim, untrusted_texts)
    return output


def _source(
    name: str, cache_dir: str | None, tag: str | None, profile: str | Path | None, weights: bool = True
) -> Source:
    """Find what is to be exported, read under the profile and the tag asked for."""
    if profile is None and (name in registry.MODELS or name in registry.ALIASES) and not Path(name).is_dir():
        return locate(name, tag, cache_dir, weights)
    source = from_name(name, cache_dir, profile=profile, weights=weights)
    if tag is None:
        return source
    tags = source.profile.tags if source.profile and not source.is_adapter else {}
    if tag not in tags:
        raise ValueError(
            f"unknown tag {tag!r:.80} of {name!r:.120}; valid tags: {', '.join(tags) or 'none, it has no profile'}"
        )
    return replace(source, tag=tag)


def _write(
    scratch: Path, config: VladvaConfig, base: BaseFiles, saved: StoredAdapter | None, max_shard_size: str | int
) -> None:
    backbone = _architecture(config, base, saved)
    tokenizer, prompts, config = load_prompts(config, base)
    readers.refuse_unreadable(config, backbone, prompts)
    visual = config.prompt.visual_span or backbone.visual_span
    base_processor = processor.load(base)
    base_processor.tokenizer = tokenizer
    slots = add_slots(tokenizer, prompts, backbone.vocab_size)
    exported = config.replace(prompt=slot_templates(config.prompt, prompts, slots))
    build = functools.partial(Prompts.build, tokenizer, exported.prompt, starts_with_bos=backbone.starts_with_bos)
    spelled, asked = build(visual), backbone.processor_span or visual
    templates = chat.embed_templates(tokenizer, exported.prompt, asked, spelled, asks=backbone.has_head)
    processor.write(scratch, base_processor, templates, backbone, config)
    sizes = backbone.num_visual_tokens(config.image.size), config.image.size
    processor.check(scratch, exported.prompt, spelled, build(asked).image_row(1), *sizes)
    configs.write(scratch, base, backbone, config, slots.num_rows, slots.ids)
    tensors = _tensors(base, backbone, config, prompts, slots, saved)
    shards.write(scratch, tensors.shapes(), tensors.read, max_shard_size)
    _write_ours(scratch, exported)


def _architecture(
    config: VladvaConfig, base: BaseFiles, saved: StoredAdapter | None = None, load_weights: bool = True
) -> Backbone:
    """Return the base's architecture on the CPU with stand-ins for its weights, and the adapter's LoRA in it."""
    backbone = architecture(config, base, torch_dtype(config, None), load_weights=load_weights)
    lora.stand_in(backbone.lvlm)
    backbone.lvlm.tie_weights()
    if saved and saved.lora_config is not None:
        lora.inject(backbone.lvlm, saved.lora_config, saved.lora)
    return backbone


def _tensors(
    base: BaseFiles,
    backbone: Backbone,
    config: VladvaConfig,
    prompts: Prompts,
    slots: Slots,
    saved: StoredAdapter | None,
) -> Tensors:
    def fill(embedding: torch.Tensor) -> torch.Tensor:
        return fill_rows(embedding, slots, prompts, saved.soft_prompt if saved else None)

    changes = {EMBEDDING: fill}
    if not backbone.head_is_tied:
        changes[HEAD] = lambda head: enlarge_head(head, slots)
    return Tensors(base, backbone, getattr(torch, config.dtype), slots.num_rows, _replaced(saved), changes)


def _replaced(saved: StoredAdapter | None) -> dict[str, torch.Tensor]:
    return lora.base_parameters(saved.lora) if saved else {}


def _write_ours(scratch: Path, config: VladvaConfig) -> None:
    """Write our own description, from which `create_model` knows that the prompts are part of the vocabulary."""
    base = config.base
    base = replace(base, profile=None)  # its templates are not the export's, whose own stand here
    if base.id.startswith(LOCAL):  # a local path means nothing on another machine
        base = replace(base, id=f"{LOCAL}{Path(base.id.removeprefix(LOCAL)).name}")
    text = json.dumps(config.replace(base=base, written_by=__version__).to_dict(), indent=2, sort_keys=True) + "\n"
    (scratch / EXPORT_FILE).write_text(text, encoding="utf-8")


def _refuse_before_download(source: Source) -> None:
    """Refuse what the small files already show: the weights, not downloaded yet, may be gigabytes."""
    if source.is_export:
        raise ValueError(f"{source.directory} is already an export; export the adapter that it was made from")
    stated = source.stated if source.is_adapter else None
    config = stated or describe_base(source)
    readers.refuse_stated(config)
    if not source.is_adapter and readers.may_be_unreadable(config):
        config, base, _ = open_checked(source, load_weights=False)
        backbone = _architecture(config, base.files, load_weights=False)
        readers.refuse_unreadable(config, backbone, load_prompts(config, base.files)[1])


def _refuse_within(output: Path, *inputs: Path) -> None:
    for directory in inputs:
        directory = directory.resolve()
        if output.resolve() in (directory, *directory.parents):
            raise ValueError(f"{output} contains the model to export ({directory}); choose another output")


def _refuse_other_geometry(config: VladvaConfig, base: BaseFiles) -> None:
    """Check that the base's processor treats images as the adapter does, since the export uses it."""
    family = backbone_class(config.base.family)
    own = family.image_config(read_base_config(base), processor_config(base), config.image.size)
    if own != config.image:
        raise ValueError(
            f"the adapter prepares images by {config.image}, its base's own processor by {own}; an export uses the "
            "base's processor, so this adapter can't be exported"
        )
