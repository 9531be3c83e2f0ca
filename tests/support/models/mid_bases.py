"""Random bases of a middle size: a micro-batch's activations outweigh what a tiny base leaves to chance."""

import json
from pathlib import Path
from typing import Any

from tests.support.models import (
    published_configs,
    tiny_bases,
    tiny_internvl,
    tiny_llava_onevision,
    tiny_qwen2_5_vl,
    tiny_qwen3_vl,
    tiny_smolvlm,
)
from vladva_clip.encoder.backbones import backbone_class

FAMILIES = ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "llava_onevision")
MROPE = {"mrope_section": [8, 12, 12]}


def config(family: str, vocabulary: int = 512, width: int = 384) -> tuple[dict[str, Any], int]:
    """A config.json and the pixels of an image: two layers, heads of 64, as many tokens of an image as published."""
    made, size = _MAKERS[family]()
    wide = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": width // 64, "vocab_size": vocabulary}
    made.get("text_config", made).update({**wide, "num_key_value_heads": 2, "intermediate_size": 4 * width})
    vision = made["vision_config"]
    vision |= {"out_hidden_size": width} if family in ("qwen2_5_vl", "qwen3_vl") else {}
    vision |= {"hidden_size": width} if family == "qwen2_vl" else {}
    return made, size


def write(directory: Path, family: str, vocabulary: int = 512, width: int = 384) -> Path:
    """Write such a base with random weights."""
    made, size = config(family, vocabulary, width)
    tokenizer = tiny_bases.llava_tokenizer() if family == "llava" else tiny_bases.qwen_tokenizer()
    chat = tiny_bases.LLAVA_CHAT if family == "llava" else tiny_bases.QWEN_CHAT
    lvlm_class = backbone_class(family).lvlm_class()
    return tiny_bases.write_base(directory, lvlm_class, tokenizer, made, _processor(family, size), chat)


def _processor(family: str, size: int) -> dict[str, Any]:
    values = {"image_mean": tiny_bases.MEAN, "image_std": tiny_bases.STD}
    if family == "llava":
        sides = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}, "do_center_crop": True}
        return {"image_processor_type": "CLIPImageProcessor", **sides, **values}
    patches = {"patch_size": 16 if family == "qwen3_vl" else 14, "temporal_patch_size": 2, "merge_size": 2}
    return {"image_processor_type": "Qwen2VLImageProcessor", **patches, **values}


def _llava() -> tuple[dict[str, Any], int]:
    made = tiny_bases.llava_config(tiny_bases.llava_tokenizer())
    vision = {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 1024}
    made["vision_config"] |= {**vision, "image_size": 224}
    return made, 224


def _llava_next() -> tuple[dict[str, Any], int]:
    made, side = _llava()
    made["vision_config"] |= {"image_size": side // 2}
    return {**made, "model_type": "llava_next", "image_grid_pinpoints": [[side, side]]}, side


def _qwen2() -> tuple[dict[str, Any], int]:
    made = tiny_bases.qwen_config(tiny_bases.qwen_tokenizer())
    made["rope_scaling"] |= MROPE
    made["vision_config"] |= {"embed_dim": 320, "num_heads": 4, "mlp_ratio": 4}
    return made, 448


def _qwen2_5() -> tuple[dict[str, Any], int]:
    made = tiny_qwen2_5_vl.config(tiny_bases.qwen_tokenizer())
    made["rope_scaling"] |= MROPE
    made["vision_config"] |= {"hidden_size": 320, "intermediate_size": 880, "num_heads": 4, "window_size": 112}
    return made, 448


def _qwen3() -> tuple[dict[str, Any], int]:
    made = tiny_qwen3_vl.config_of(tiny_bases.qwen_tokenizer(), depth=3)
    made["text_config"]["head_dim"] = 64
    made["text_config"]["rope_scaling"] |= MROPE
    made["vision_config"] |= {"hidden_size": 256, "intermediate_size": 1024, "num_heads": 4}
    return made, 512


def _internvl() -> tuple[dict[str, Any], int]:
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    return tiny_internvl.config_of(tiny_internvl.tokenizer_of(), 448, **wide), 448


def _llava_onevision() -> tuple[dict[str, Any], int]:
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    return tiny_llava_onevision.config_of(tiny_llava_onevision.tokenizer_of(), 384, **wide), 384


def _gemma2() -> tuple[dict[str, Any], int]:
    """EmbeddingGemma 2's shapes; it can't be written as a base by `write`."""
    made = json.loads((published_configs.FOLDER / "embeddinggemma-2.json").read_text())
    made["audio_config"] = None
    made["text_config"] |= {"head_dim": 64, "layer_types": ["sliding_attention", "full_attention"]}
    made["text_config"] |= {"per_layer_config": {"01": {"head_dim": 128, "num_key_value_heads": 1}}}
    made["vision_config"] |= {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2}
    made["vision_config"] |= {"num_attention_heads": 4, "num_key_value_heads": 4}
    return made, 768


def _idefics3() -> tuple[dict[str, Any], int]:
    made = tiny_smolvlm.config_of("idefics3", tiny_smolvlm.tokenizer(), scale=4)
    made["text_config"]["head_dim"] = 64
    vision = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "patch_size": 16}
    made["vision_config"] |= {**vision, "image_size": 512}
    return made, 512


_MAKERS = {
    "llava": _llava,
    "llava_next": _llava_next,
    "qwen2_vl": _qwen2,
    "qwen2_5_vl": _qwen2_5,
    "qwen3_vl": _qwen3,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "embedding_gemma2": _gemma2,
    "idefics3": _idefics3,
}
