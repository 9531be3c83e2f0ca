"""Tiny embedders as others publish them: a base of a known family, and a profile that says how its authors embed."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

from tests.support.models import tiny_bases

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
CHAT = SYSTEM + "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
QUERY = CHAT.replace("You are a helpful assistant.", "Find an image that matches the given text.")
# behind the content stands text, which a caption's last token may merge with
WITH_TEXT_BEHIND = CHAT.replace("{}", "{}\nSummary above sentence in one word:")
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MERGED = ["red.\nSummary", "user\n\n\nred", "a red  \nSummary above sentence in one word:", "\n\n", ' "red".\n'] * 30
SPECIAL = "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>"
CAPTIONS = [
    *("a red circle.", 'the "red" dog\'s "cat".', "two  dogs   on  grass", "  a dog", "a dog \n", "\n\na cat", " \n x"),
    *("", "\n", " ", "\ta dog\r\n", "first line\nsecond line\n\nthird"),
    *("红色的圆。", "赤い丸、青い四角", "a 🙂 dog 👩\u200d👧", "&amp; <b>bold</b>"),
    "a small green square above the red circle " * 12 + ".",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """One that cuts texts as Qwen's does and merges a period, or a line break, with the line break behind it."""
    made = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([*tiny_bases.CORPUS, *_MERGED], trainer)
    made.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL.split()])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def write_qwen(directory: Path, own: Any = None, headless: bool = False, **config: Any) -> Path:
    """Write a Qwen2-VL; with another tokenizer than `tokenizer`, or without its head, as GME-7B is."""
    own = own or tokenizer()
    config = tiny_bases.qwen_config(own) | {"tie_word_embeddings": not headless, "vocab_size": 600, **config}
    processor = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    processor |= {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 784, "max_pixels": 1003520}
    processor |= {"image_mean": tiny_bases.MEAN, "image_std": tiny_bases.STD}
    chat = tiny_bases.QWEN_CHAT
    tiny_bases.write_base(directory, Qwen2VLForConditionalGeneration, own, config, processor, chat)
    if headless:
        tiny_bases.drop(directory, "lm_head.weight")
    return directory


def write_profile(path: Path, embed_dim: int = 32, admits: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a profile as Ops-MM's over a tiny base; `changes` replace keys of prompt, encoding or config."""
    prompt = {"image_template": CHAT.format("{visual}"), "text_template": CHAT.format("{caption}")}
    prompt |= {"image_prompt": "", "text_prompt": "", "soft_slots": "template", "second_turn": None}
    prompt |= {"caption_ids": "joined", "visual_span": None, "clean": "none"}
    encoding = {"positions": "family", "pooling": "last", "attention": "causal", "projection": None}
    encoding |= {"headless": False, "matryoshka_dims": []}
    image = {"size": 112, "mean": tiny_bases.MEAN, "std": tiny_bases.STD, "interpolation": "bicubic"}
    config = {"format_version": 3, "family": "qwen2_vl", "embed_dim": embed_dim, "context_length": 512}
    config |= {"dtype": "float32", "image": {**image, "resize_mode": "squash", "fill_color": 0}}
    for name, value in changes.items():
        part = next((one for one in (prompt, encoding) if name in one), config)
        assert name in part, name
        part[name] = value
    tags = {"retrieval": {"text_template": QUERY.format("{caption}")}, "default": {}}
    config |= {"prompt": prompt, "encoding": encoding}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": path.stem, "config": config, "tags": tags, "admits": admits or {}}))
    return path
