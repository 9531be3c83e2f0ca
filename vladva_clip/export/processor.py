"""The export's tokenizer, image processor and chat templates, and a check that they write the encoder's sequences."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import processors
from transformers import AutoProcessor

from vladva_clip.encoder.admission.processors import attempt, load_processor
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.export import chat
from vladva_clip.interface.quiet import unclosed_files_ignored
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import PromptConfig, VladvaConfig

_PREPROCESSOR = "preprocessor_config.json"


def load(base: BaseFiles):
    """Load the base's processor.

    Raises:
        ValueError: it has no default chat template, or already has a template of our name.
    """
    processor = load_processor(base)
    templates = _templates(processor)
    if "default" not in templates:
        raise ValueError(
            f"{base.directory} has no chat template, which an export needs as its default; get the base's files again"
        )
    if taken := [name for name in (chat.NAME, chat.CAPTION) if name in templates]:
        raise ValueError(
            f"{base.directory} already has a chat template {taken[0]!r}: it is itself an export, or a copy of one"
        )
    return processor


def write(directory: Path, processor, templates: dict[str, str], backbone: Backbone, config: VladvaConfig) -> None:
    """Write tokenizer, image processor and chat templates.

    Args:
        directory: the export's directory.
        processor: the base's processor, with the slots' tokens in its tokenizer; changed in place.
        templates: the chat templates to add, by name.
        backbone: of the base.
        config: of the export.
    """
    backbone.pin_image_size(processor, config.image.size)
    processor.chat_template = {**_templates(processor), **templates}
    processor.tokenizer.chat_template = None  # one place for the templates: the processor's files
    processor.tokenizer.truncation_side = "right"  # captions lose their end, as in our own rows
    _append_nothing(processor.tokenizer)
    processor.save_pretrained(directory)
    if not (directory / _PREPROCESSOR).exists():  # transformers 4 and others look for it there
        processor.image_processor.save_pretrained(directory)


def _append_nothing(tokenizer) -> None:
    """Take away what a tokenizer puts behind a text: our templates end in the token that is read. In place."""
    alone, framed = (tokenizer("a", add_special_tokens=added).input_ids for added in (False, True))
    if len(framed) > len(alone) and framed[: len(alone)] == alone:
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)


def check(
    directory: Path,
    templates: PromptConfig,
    prompts: Prompts,
    short_row: list[int],
    num_visual_tokens: int,
    image_size: int,
) -> None:
    """Load the written processor as any user would, and compare its sequences with the encoder's own.

    Args:
        directory: the export's directory.
        templates, prompts: spelled in the slots' tokens.
        short_row: the ids of an image's sequence before the processor repeats the slot.
        num_visual_tokens: number of visual slots of an image.
        image_size: pixels.

    Raises:
        ValueError: the processor writes other ids than the encoder.
    """
    with unclosed_files_ignored():  # transformers leaves those of additional chat templates open
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    image = Image.fromarray(np.zeros((image_size, image_size, 3), dtype=np.uint8))
    captions = chat.caption_rows(processor.tokenizer, templates, prompts)
    contents = [{"type": "image", "image": image}, *({"type": "text", "text": text} for text in chat.PROBES)]
    rows, unrepeated = [prompts.image_row(num_visual_tokens), *captions], [short_row, *captions]
    for content, row, short in zip(contents, rows, unrepeated, strict=True):
        chats = [{"role": "user", "content": [content]}]
        found = attempt(functools.partial(_ids, processor, chats), directory, "sequences")
        _compare(content, found[0], row)
        _compare(content, found[1], short)
    if chat.CAPTION in processor.chat_template:
        asking = [{"role": "user", "content": contents[:1]}]
        found = processor.apply_chat_template(asking, chat_template=chat.CAPTION, tokenize=True, return_dict=True)
        _compare(contents[0], found["input_ids"], [*prompts.image_row(num_visual_tokens), *prompts.second_turn])


def _ids(processor, chats: list[dict]) -> tuple[list, list]:
    """Return the ids that the processor writes with each of our two templates."""
    found = processor.apply_chat_template(chats, chat_template=chat.NAME, tokenize=True, return_dict=True)
    text = processor.apply_chat_template(chats, chat_template=chat.FOR_VLLM, tokenize=False)
    return found["input_ids"], processor.tokenizer(text, add_special_tokens=False).input_ids


def _compare(content: dict, found: list, row: list[int]) -> None:
    found = list(found[0]) if isinstance(found[0], list) else list(found)
    if found != row:
        raise ValueError(
            f"the exported processor writes {len(found)} ids for {content.get('text', 'an image')!r} ({found[:6]}...), "
            f"expected the encoder's {len(row)} ({row[:6]}...): the base's processor settings don't belong to its "
            "model; get its processor_config.json and tokenizer again"
        )


def _templates(processor) -> dict[str, str]:
    template = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(template, dict):
        return template
    return {"default": template} if template else {}
