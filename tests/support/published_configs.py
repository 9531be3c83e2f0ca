"""config.json of the registered bases as published on the Hub, with the many keys that decide nothing."""

from typing import Any

_CLIP_L_336 = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
_LLAVA: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_seq_length": 576,
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.36.0.dev0",
    "vision_config": _CLIP_L_336,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
_VICUNA = {
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
    "vocab_size": 32064,
}
_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_hidden_layers": 40}
_QWEN2_VL_2B: dict[str, Any] = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 1536,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "vladva-7b": {**_LLAVA, "text_config": {**_VICUNA, "_name_or_path": "lmsys/vicuna-7b-v1.5"}},
    "vladva-13b": {
        **_LLAVA,
        "text_config": {**_VICUNA, **_13B, "num_key_value_heads": 40, "_name_or_path": "lmsys/vicuna-13b-v1.5"},
    },
    "vladva-2b": _QWEN2_VL_2B,
}
# as transformers of the years 4.52 and on write Qwen2-VL: the LLM's settings in a part of their own, and at the top too
_LLM_KEYS = {key for key, value in _QWEN2_VL_2B.items() if key not in ("architectures", "model_type", "vision_config")}
RESAVED: dict[str, dict[str, Any]] = {
    "vladva-2b": {
        **_QWEN2_VL_2B,
        "_attn_implementation_autoset": True,
        "quantization_config": None,
        "text_config": {
            **{key: _QWEN2_VL_2B[key] for key in _LLM_KEYS if not key.endswith("_token_id")},
            "_name_or_path": "Qwen/Qwen2-VL-2B-Instruct",
            "layer_types": ["full_attention"] * 28,
            "model_type": "qwen2_vl_text",
            "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
            "vision_token_id": 151654,
        },
        "vision_config": {**_QWEN2_VL_2B["vision_config"], "in_channels": 3, "model_type": "qwen2_vl"},
    }
}
