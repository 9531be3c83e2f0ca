"""A tiny random LLaVA-NeXT with Llama 3, written as an ordinary Hugging Face directory.

As in the published one, the tokenizer is byte-level and merges a full stop or a line break with the line breaks behind
it; the grids allow one square, of two tiles a side.
"""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import LlavaNextForConditionalGeneration, PreTrainedTokenizerFast

from tests.support.models.tiny_bases import CORPUS, MEAN, STD, llava_config, write_base

BEGIN, EOT, IMAGE = "<|begin_of_text|>", "<|eot_id|>", "<image>"
SPECIALS = (BEGIN, "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", EOT, IMAGE, "<pad>")
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LINES = [
    "a dog.\nSummary above sentence in one word: ",
    "\n\nA red circle.",
    "\n\n\nSummary",
    "is it red?\n\n",
    " \n a",
]
SIDE = 28  # pixels of the tower, in patches of 14
GRIDS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]  # the published ones, by twelve
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
CHAT = (  # the prompt that transformers' documentation gives for the published one
    f"<|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
PROCESSOR = {  # as published, without what transformers does by itself
    **{"image_processor_type": "LlavaNextImageProcessor", "processor_class": "LlavaNextProcessor", "resample": 3},
    **{"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}, "do_pad": True},
    **{"image_mean": MEAN, "image_std": STD, "image_grid_pinpoints": GRIDS},
}


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, as Llama 3's, with BOS in front of a text; it merges full stops and line breaks with line breaks."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, *LINES * 40], trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    frame = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), frame])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=EOT, pad_token="<pad>")


def config_of(tokenizer) -> dict:
    """The config.json, laid out as the published ones are."""
    config = llava_config(tokenizer)
    text = config["text_config"] | {"vocab_size": 512, "rope_theta": 500000.0}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config |= {"model_type": "llava_next", "architectures": ["LlavaNextForConditionalGeneration"], "text_config": text}
    config["vision_config"] |= {"image_size": SIDE}
    return config | {"image_grid_pinpoints": GRIDS, "use_image_newline_parameter": True, "tie_word_embeddings": False}


def crops_of(images: torch.Tensor, side: int = SIDE) -> dict[str, torch.Tensor]:
    """The processor's crops of preprocessed squares of two tiles a side, and their sizes: inputs of the full model."""
    whole = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True)
    tiles = [images[:, :, top : top + side, left : left + side] for top in (0, side) for left in (0, side)]
    sizes = torch.tensor([[2 * side, 2 * side]] * len(images))
    return {"pixel_values": torch.stack([whole, *tiles], dim=1), "image_sizes": sizes}


def write_llava_next(directory: Path, seed: int = 0) -> Path:
    """Write it with random weights."""
    tokenizer = llama3_tokenizer()
    config = config_of(tokenizer)
    write_base(directory, LlavaNextForConditionalGeneration, tokenizer, config, PROCESSOR, CHAT, seed)
    settings = {"processor_class": "LlavaNextProcessor", "patch_size": 14, "vision_feature_select_strategy": "default"}
    settings |= {"image_token": IMAGE, "num_additional_image_tokens": 1}
    (directory / "processor_config.json").write_text(json.dumps(settings))
    return directory
