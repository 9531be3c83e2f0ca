"""A tiny random InternVL, written as an ordinary Hugging Face directory.

As in the published ones, the tokenizer has a token for videos beyond the embedding's rows, sizes of the vision tower
are lists, positions are scaled by `dynamic`, and nothing says that the head is one of its own.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, InternVLForConditionalGeneration, PreTrainedTokenizerFast

from tests.support.models.tiny_bases import qwen_tokenizer, write_base

CHAT = (  # as published
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}{% elif content['type'] == 'text' %}"
    "{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
TOKENS = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
VIDEO = {"video_token": "<video>"}
SIDE = 56  # pixels: 4 x 4 patches, 4 visual tokens


def tokenizer_of() -> PreTrainedTokenizerFast:
    """Qwen's, with the tokens of an image, and after them that of a video."""
    tokenizer = qwen_tokenizer()
    for tokens in (TOKENS, VIDEO):
        tokenizer.add_tokens(list(tokens.values()), special_tokens=True)
    return tokenizer


def config_of(tokenizer, side: int = SIDE, **vision_settings) -> dict:
    """The config.json, laid out as the published ones are."""
    config = {"model_type": "internvl", "architectures": ["InternVLForConditionalGeneration"]}
    config |= {"downsample_ratio": 0.5, "image_seq_length": (side // 14) ** 2 // 4, "projector_hidden_act": "gelu"}
    config |= {"image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")}
    config |= {"vision_feature_layer": -1, "vision_feature_select_strategy": "default"}
    text = {"model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 2048}
    text |= {"vocab_size": tokenizer.convert_tokens_to_ids("<video>"), "rms_norm_eps": 1e-6, "rope_theta": 1000000.0}
    text |= {"rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}, "max_window_layers": 70}
    text |= {"use_sliding_window": False, "sliding_window": None, "bos_token_id": tokenizer.pad_token_id}
    text |= {"eos_token_id": tokenizer.eos_token_id}
    vision = {"model_type": "internvl_vision", "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= {"intermediate_size": 48, "image_size": [side, side], "patch_size": [14, 14], "attention_bias": True}
    vision |= {"use_qk_norm": False, "norm_type": "layer_norm", "layer_norm_eps": 1e-6, "use_mean_pooling": True}
    vision |= {"layer_scale_init_value": 0.1, "use_absolute_position_embeddings": True, "use_mask_token": False}
    return {**config, "text_config": text, "vision_config": {**vision, **vision_settings}}


def processor_of(side: int = SIDE) -> dict:
    """The preprocessor_config.json, with all keys of the published ones."""
    names = ("crop_size", "device", "do_center_crop", "input_data_format", "return_tensors")
    processor: dict[str, Any] = dict.fromkeys(names)
    processor |= {"crop_to_patches": False, "min_patches": 1, "max_patches": 12, "data_format": "channels_first"}
    processor |= {"image_processor_type": "GotOcr2ImageProcessorFast", "processor_class": "InternVLProcessor"}
    processor |= {f"do_{name}": True for name in ("convert_rgb", "normalize", "rescale", "resize")}
    processor |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3}
    processor |= {"default_to_square": True, "rescale_factor": 0.00392156862745098}
    return {**processor, "size": {"height": side, "width": side}}


def write_internvl(directory: Path, seed: int = 0, side: int = SIDE, **vision_settings) -> Path:
    """Write it with random weights.

    Args:
        directory: to write.
        seed: of the weights.
        side: of an image, in pixels; a multiple of 28.
        vision_settings: keys of `vision_config` in place of the published ones.
    """
    tokenizer = tokenizer_of()
    config, lvlm_class = config_of(tokenizer, side, **vision_settings), InternVLForConditionalGeneration
    own_head = {**config, "tie_word_embeddings": False}  # else transformers 5 writes none
    write_base(directory, lvlm_class, tokenizer, own_head, processor_of(side), CHAT, seed)
    (directory / "config.json").write_text(json.dumps(config))
    settings = {"image_seq_length": config["image_seq_length"], "processor_class": "InternVLProcessor"}
    (directory / "processor_config.json").write_text(json.dumps(settings))
    path = directory / "tokenizer_config.json"
    named = {**TOKENS, **VIDEO}
    stated = {**json.loads(path.read_text()), **named, "extra_special_tokens": named}
    path.write_text(json.dumps({**stated, "additional_special_tokens": list(TOKENS.values())}))
    return directory


def untied(directory: Path) -> InternVLForConditionalGeneration:
    """transformers' own model, in float32, told what the files leave out."""
    config = AutoConfig.from_pretrained(directory)
    config.tie_word_embeddings = False
    return InternVLForConditionalGeneration.from_pretrained(directory, config=config, dtype=torch.float32).eval()


def rename_to_modules(directory: Path) -> None:
    """Give the tensors the names of transformers 5's own modules; it writes those of the published files."""
    path = directory / "model.safetensors"
    save_file({_module_name(name): tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


def _module_name(name: str) -> str:
    if name.startswith("language_model."):
        return name.replace("language_model.lm_head", "lm_head").replace("language_model.model", "model.language_model")
    return f"model.{name}"
