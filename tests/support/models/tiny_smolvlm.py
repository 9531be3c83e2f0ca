"""Tiny random SmolVLMs of both of transformers' types, written as ordinary Hugging Face directories.

As published: digits are words of their own, special tokens are those of the real vocabulary, heads of the LLM share
keys, and its head is a tensor of its own.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.support.models.tiny_bases import CORPUS, write_base
from vladva_clip.encoder.backbones import backbone_class

SIDE = 112  # pixels of the vision tower's images: 8 patches a side, 16 visual tokens
CHAT = (  # as published
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == "
    "'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}"
    "{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
GRID = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<global-img>", *GRID, "<fake_token_around_image>", "<image>", "<end_of_utterance>"]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level with single digits, as SmolLM2's; long texts would be cut at their beginning."""
    made = Tokenizer(models.BPE())
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence(steps), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([*CORPUS, "User: Assistant: 1234 6789"] * 2, trainer)
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ADDED])
    names = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    names |= {"unk_token": "<|endoftext|>", "truncation_side": "left"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def config_of(family: str, tokens: PreTrainedTokenizerFast, scale: int = 2, **vision: Any) -> dict[str, Any]:
    """The config.json of a family, laid out as the published ones are, with keys that mean nothing."""
    text = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
    text |= {"num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 512, "max_position_embeddings": 2048}
    text |= {"rms_norm_eps": 1e-6, "rope_theta": 100000, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    text |= {"tie_word_embeddings": False, "is_llama_config": True, "pixel_shuffle_factor": scale}
    text |= {"perceiver_config": {"model_type": "vllama3", "resampler_depth": 6}, "qk_layer_norms": False}
    tower = {"model_type": {"idefics3": "idefics3", "smolvlm": "smolvlm_vision"}[family], "image_size": SIDE}
    tower |= {"patch_size": 14, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    tower |= {"intermediate_size": 48, "size": {"longest_edge": 4 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    config = {"model_type": family, "architectures": [backbone_class(family).lvlm_class().__name__]}
    config |= {"image_token_id": tokens.convert_tokens_to_ids("<image>"), "scale_factor": scale}
    config |= {"tie_word_embeddings": False, "pad_token_id": 128002, "vocab_size": 512}
    return {**config, "text_config": text, "vision_config": {**tower, **vision}}


def processor_of(family: str, side: int = SIDE) -> dict[str, Any]:
    """The preprocessor_config.json, as published."""
    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[family]
    doing = ("convert_rgb", "image_splitting", "normalize", "pad", "rescale", "resize")
    settings = {"image_processor_type": f"{name}ImageProcessor", "processor_class": f"{name}Processor"}
    settings |= {f"do_{what}": True for what in doing} | {"resample": 1, "rescale_factor": 0.00392156862745098}
    settings |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    return {**settings, "size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}}


def write(directory: Path, family: str, seed: int = 0, scale: int = 2, **vision: Any) -> Path:
    """Write it with random weights.

    Args:
        directory: to write.
        family: "idefics3" or "smolvlm".
        seed: of the weights.
        scale: patches a side of a visual token.
        vision: keys of the vision tower's config.
    """
    tokens = tokenizer()
    config = config_of(family, tokens, scale, **vision)
    tower = config["vision_config"]
    processor = processor_of(family, tower["image_size"])
    write_base(directory, backbone_class(family).lvlm_class(), tokens, config, processor, CHAT, seed)
    length = (tower["image_size"] // tower["patch_size"] // scale) ** 2
    settings = f'{{"image_seq_len": {length}, "processor_class": "{processor["processor_class"]}"}}'
    (directory / "processor_config.json").write_text(settings)
    return directory


def write_idefics3(directory: Path, seed: int = 0) -> Path:
    return write(directory, "idefics3", seed)


def write_smolvlm(directory: Path, seed: int = 0) -> Path:
    return write(directory, "smolvlm", seed)
