"""A tiny random Qwen3-VL, written as an ordinary Hugging Face directory.

As in the published ones, heads are wider than the LLM's width over their number, the learned positions of the vision
tower are a grid of another size, and there are fewer feature maps than layers of the LLM: one that the last layer got
would reach no summary token.
"""

from pathlib import Path

from transformers import Qwen3VLForConditionalGeneration

from tests.support.models.tiny_bases import QWEN_CHAT, qwen_tokenizer, write_base

CHAT = QWEN_CHAT.removeprefix("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
PROCESSOR = {  # as published, without what transformers does by itself
    **{"image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor"},
    **{"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2},
    **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
}


def config_of(tokenizer, tied: bool = True, depth: int = 2) -> dict:
    """The config.json, laid out as the published ones are."""
    names = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    names |= {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    config = {"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"]}
    config |= {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    text = {"model_type": "qwen3_vl_text", "hidden_size": 32, "num_hidden_layers": depth, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64, "vocab_size": 512}
    text |= {"attention_bias": False, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_theta": 5000000}
    text |= {"rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}}
    text |= {"bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    text |= {"tie_word_embeddings": tied}
    vision = {"model_type": "qwen3_vl", "depth": 4, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48}
    vision |= {"deepstack_visual_indexes": [0, 2][: depth - 1], "num_position_embeddings": 36, "out_hidden_size": 32}
    vision |= {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
    vision |= {"hidden_act": "gelu_pytorch_tanh", "initializer_range": 0.02}
    return {**config, "tie_word_embeddings": tied, "text_config": text, "vision_config": vision}


def write_qwen3_vl(directory: Path, seed: int = 0, **settings) -> Path:
    """Write it with random weights.

    Args:
        directory: to write.
        seed: of the weights.
        settings: `tied`, as the 2B and 4B, or with a head of its own, as the 8B; `depth` of the LLM: 2 layers and one
            map, or 3 and two.
    """
    tokenizer = qwen_tokenizer()
    config = config_of(tokenizer, **settings)
    return write_base(directory, Qwen3VLForConditionalGeneration, tokenizer, config, PROCESSOR, CHAT, seed)
