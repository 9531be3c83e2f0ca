"""A tiny random Qwen2.5-VL, written as an ordinary Hugging Face directory."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from tests.support.models.tiny_bases import MEAN, QWEN_CHAT, STD, qwen_config, qwen_tokenizer, write_base

WINDOW = 56  # pixels of a window's side: 2 x 2 visual tokens


def config(tokenizer) -> dict:
    """Flat, as the published config.json is; blocks 0 and 2 of the vision tower see windows, 1 and 3 the image."""
    flat = qwen_config(tokenizer)
    vision = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "hidden_act": "silu"}
    vision |= {"out_hidden_size": flat["hidden_size"], "patch_size": 14, "spatial_merge_size": 2, "in_chans": 3}
    vision |= {"spatial_patch_size": 14, "temporal_patch_size": 2, "tokens_per_second": 2}
    vision |= {"window_size": WINDOW, "fullatt_block_indexes": [1, 3]}
    architectures = ["Qwen2_5_VLForConditionalGeneration"]
    return {**flat, "model_type": "qwen2_5_vl", "architectures": architectures, "vision_config": vision}


def write(directory: Path, seed: int = 0) -> Path:
    """Write the base with random weights of healthy size."""
    tokenizer = qwen_tokenizer()
    processor = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    processor |= {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    processor |= {"min_pixels": 3136, "max_pixels": 12845056, "image_mean": MEAN, "image_std": STD}
    lvlm_class = Qwen2_5_VLForConditionalGeneration
    return write_base(directory, lvlm_class, tokenizer, config(tokenizer), processor, QWEN_CHAT, seed)


def rename_to_hub(directory: Path) -> None:
    """Give a directory's tensors the older names that the files on the Hub carry."""
    path = directory / "model.safetensors"
    tensors = {_hub_name(name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _hub_name(name: str) -> str:
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    return name.replace("model.language_model.", "model.", 1)
