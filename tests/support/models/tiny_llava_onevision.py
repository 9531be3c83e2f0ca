"""A tiny random LLaVA-OneVision, written as an ordinary Hugging Face directory.

As in the published ones, the vision tower has no head. As in the smaller one, the LLM's settings alone tie its head to
the embedding.
"""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from tests.support.models.tiny_bases import qwen_tokenizer, write_base

SIDE = 56  # pixels: 4 x 4 patches of 14, 17 visual tokens
CHAT = (  # as transformers' conversion writes it, for messages of a user
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer_of() -> PreTrainedTokenizerFast:
    """Qwen's, with the tokens of an image and of a video behind it."""
    tokenizer = qwen_tokenizer()
    tokenizer.add_tokens(["<image>", "<video>"], special_tokens=True)
    return tokenizer


def config_of(tokenizer, side: int = SIDE, tied: bool = True, **vision_settings) -> dict:
    """The config.json, laid out as the published ones are."""
    config = {"model_type": "llava_onevision", "architectures": ["LlavaOnevisionForConditionalGeneration"]}
    config |= {f"{name}_token_index": tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("image", "video")}
    config |= {
        "image_grid_pinpoints": grids(side),
        "vision_aspect_ratio": "anyres_max_9",
        "projector_hidden_act": "gelu",
    }
    config |= {"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "tie_word_embeddings": False}
    text = {"model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 512, "rope_theta": 1000000.0}
    text |= {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": tied}
    text |= {"bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= {"intermediate_size": 48, "image_size": side, "patch_size": 14, "vision_use_head": False}
    return {**config, "text_config": text, "vision_config": {**vision, **vision_settings}}


def grids(side: int) -> list[list[int]]:
    """The published ones: one to six tiles a side."""
    return [[side * rows, side * columns] for rows in range(1, 7) for columns in range(1, 7)]


def processor_of(side: int = SIDE) -> dict[str, Any]:
    """The preprocessor_config.json, as published."""
    settings = {f"do_{name}": True for name in ("convert_rgb", "normalize", "pad", "rescale", "resize")}
    settings |= {"image_processor_type": "LlavaOnevisionImageProcessor", "processor_class": "LlavaOnevisionProcessor"}
    settings |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "image_grid_pinpoints": grids(side)}
    settings |= {"resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": side, "width": side}}
    return settings


def crops_of(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs of the full model for preprocessed squares, each as one of several images of a message is given."""
    sizes = torch.tensor([list(images.shape[-2:])] * len(images))
    return {"pixel_values": images[:, None], "image_sizes": sizes, "batch_num_images": torch.full((len(images),), 2)}


def ids_of(processor: Any, text: str, image: Image.Image) -> list[int]:
    """The ids of a text with one of several images in a message: what the processor writes of two, without the second.

    Args:
        processor: transformers' own.
        text: with one `<image>`.
        image: any.
    """
    both = processor(text=[f"{text}<image>"], images=[[image, image]])["input_ids"][0]
    one = both[: len(both) - both.count(processor.image_token_id) // 2]
    assert both[len(one) :] == [processor.image_token_id] * (len(both) - len(one))
    return one


def write_llava_onevision(
    directory: Path, seed: int = 0, side: int = SIDE, tied: bool = True, **vision_settings
) -> Path:
    """Write it with random weights.

    Args:
        directory: to write.
        seed: of the weights.
        side: of a crop, in pixels.
        tied: the head is the embedding, as in the smallest one published.
        vision_settings: keys of `vision_config` in place of the published ones.
    """
    tokenizer = tokenizer_of()
    config, lvlm_class = config_of(tokenizer, side, tied, **vision_settings), LlavaOnevisionForConditionalGeneration
    stated = {**config, "tie_word_embeddings": tied}  # else transformers 5.0 writes a head of its own
    write_base(directory, lvlm_class, tokenizer, stated, processor_of(side), CHAT, seed)
    (directory / "config.json").write_text(json.dumps(config))
    settings = {"processor_class": "LlavaOnevisionProcessor", "num_image_tokens": (side // 14) ** 2}
    settings |= {"image_token": "<image>", "video_token": "<video>", "vision_feature_select_strategy": "full"}
    (directory / "processor_config.json").write_text(json.dumps(settings))
    return directory
