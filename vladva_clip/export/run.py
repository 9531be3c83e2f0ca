"""Adapter and base -> one plain directory, from settling the source to the last check."""

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
from vladva_clip.encoder.loading import architecture, load_prompts, open_checked
from vladva_clip.encoder.precision import torch_dtype
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.export import chat, configs, processor, sentence_transformers, shards
from vladva_clip.export.directory import check_place, new_export
from vladva_clip.export.slots import Slots, add_slots, enlarge_head, fill_rows, slot_templates
from vladva_clip.export.tensors import Tensors
from vladva_clip.interface import precision_words
from vladva_clip.interface.arguments import user_path
from vladva_clip.sources.locate import EXPORT_FILE, Source, from_name
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
    **renamed: Any,
) -> Path:
    """Write a merged checkpoint that transformers, sentence-transformers and vLLM load without this package.

    LoRA is merged, and each soft slot becomes a special token whose vocabulary row is its vector. At most one shard is
    in memory at a time; nothing stands under the final name before all is written and checked.

    Args:
        name_or_path: an adapter's directory, a bare LVLM's (hand-written prompts), or a name that `create_model` takes.
        output: the directory to write.
        precision: of the weights, in the words of `create_model` ("fp32", "bf16", ...); the checkpoint's own for None.
        max_shard_size: of one weight file, such as "5GB" or a number of bytes.
        overwrite: replace an earlier export of that name; refused where it holds other files.
        cache_dir: the Hub's cache.
        renamed: none; `dtype`, as earlier versions called the precision, is refused with the word to write.

    Returns:
        The directory, absolute.

    Raises:
        ValueError: a source that can't be loaded or exported, an output that is there; what to do is said.
        TypeError: an unknown keyword.
        OSError: the disk is full or takes no files.
    """
    precision_words.refuse_other_names(renamed)
    if renamed:
        raise TypeError(f"export_model takes no argument {next(iter(renamed))!r}")
    output = user_path(output).absolute()
    word = precision_words.optional("precision", precision)
    check_place(output, overwrite)
    source = from_name(str(name_or_path), cache_dir)
    _refuse_exported(source)
    config, base, saved = open_checked(source, cache_dir=cache_dir)
    config = config.replace(dtype=precision_words.DTYPES[word] if word else config.dtype)
    _refuse_other_geometry(config, base.files)
    _refuse_within(output, source.directory, base.directory)
    with new_export(output, overwrite) as scratch:
        _write(scratch, config, base.files, saved, max_shard_size)
    return output


def _write(
    scratch: Path, config: VladvaConfig, base: BaseFiles, saved: StoredAdapter | None, max_shard_size: str | int
) -> None:
    backbone = _architecture(config, base, saved)
    tokenizer, prompts, config = load_prompts(config, base)
    base_processor = processor.load(base)
    base_processor.tokenizer = tokenizer
    slots = add_slots(tokenizer, prompts, backbone.vocab_size)
    exported = config.replace(prompt=slot_templates(prompts, slots))
    spelled = Prompts.build(tokenizer, exported.prompt, backbone.visual_span, backbone.starts_with_bos)
    templates = chat.embed_templates(tokenizer, exported.prompt, backbone.visual_span, spelled)
    processor.write(scratch, base_processor, templates, backbone, config)
    processor.check(scratch, spelled, backbone.num_visual_tokens(config.image.size), config.image.size)
    configs.write(scratch, base, backbone.lvlm, config.dtype, slots.num_rows, slots.ids)
    sentence_transformers.write(scratch, config.embed_dim)
    tensors = _tensors(base, backbone, config, prompts, slots, saved)
    shards.write(scratch, tensors.shapes(), tensors.read, max_shard_size)
    _write_ours(scratch, exported)


def _architecture(config: VladvaConfig, base: BaseFiles, saved: StoredAdapter | None) -> Backbone:
    """The base without memory, with the adapter's LoRA in it."""
    backbone = architecture(config, base, torch_dtype(config, None))
    if saved and saved.lora_config is not None:
        lora.stand_in(backbone.lvlm)
        backbone.lvlm.tie_weights()
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
        hand_written = {side: embedding[list(getattr(prompts, side).soft_ids)] for side in ("image", "text")}
        return fill_rows(embedding, slots, saved.soft_prompt if saved else hand_written)

    changes = {EMBEDDING: fill}
    if not backbone.head_is_tied:
        changes[HEAD] = lambda head: enlarge_head(head, slots)
    return Tensors(base, backbone, getattr(torch, config.dtype), slots.num_rows, _replaced(saved), changes)


def _replaced(saved: StoredAdapter | None) -> dict[str, torch.Tensor]:
    return lora.base_parameters(saved.lora) if saved else {}


def _write_ours(scratch: Path, config: VladvaConfig) -> None:
    """Our own description: with it `create_model` knows that the prompts are folded into the vocabulary."""
    base = config.base
    if base.id.startswith(LOCAL):  # a path of this machine says nothing elsewhere
        base = replace(base, id=f"{LOCAL}{Path(base.id.removeprefix(LOCAL)).name}")
    text = json.dumps(config.replace(base=base, written_by=__version__).to_dict(), indent=2, sort_keys=True) + "\n"
    (scratch / EXPORT_FILE).write_text(text, encoding="utf-8")


def _refuse_exported(source: Source) -> None:
    if source.is_export:
        raise ValueError(f"{source.directory} is an export already; export the adapter that it was made of")


def _refuse_within(output: Path, *inputs: Path) -> None:
    for directory in inputs:
        directory = directory.resolve()
        if output.resolve() in (directory, *directory.parents):
            raise ValueError(f"{output} holds what is to be exported ({directory}); choose another place")


def _refuse_other_geometry(config: VladvaConfig, base: BaseFiles) -> None:
    """The export's images go through the base's own processor, so the two must mean the same."""
    family = backbone_class(config.base.family)
    own = family.image_config(read_base_config(base), processor_config(base), config.image.size)
    if own != config.image:
        raise ValueError(
            f"the adapter's images are {config.image}, the base's own processor makes {own}; an export has the base's "
            "processor, so such an adapter can't be exported"
        )
