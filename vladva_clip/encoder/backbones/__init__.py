"""LVLM families behind one contract, a file each."""

import importlib

from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.storage.config import nearest

# transformers' `model_type` -> module and class; imported when first used. A tokenizer without config.json is of the
# first family whose tokens it has: InternVL's has Qwen's as well
FAMILIES = {
    "llava": ("vladva_clip.encoder.backbones.llava", "LlavaBackbone"),
    "llava_next": ("vladva_clip.encoder.backbones.llava_next", "LlavaNextBackbone"),
    "internvl": ("vladva_clip.encoder.backbones.internvl", "InternVLBackbone"),
    "qwen2_vl": ("vladva_clip.encoder.backbones.qwen2_vl", "Qwen2VLBackbone"),
    "qwen2_5_vl": ("vladva_clip.encoder.backbones.qwen2_5_vl", "Qwen25VLBackbone"),
    "qwen3_vl": ("vladva_clip.encoder.backbones.qwen3_vl", "Qwen3VLBackbone"),
    "embedding_gemma2": ("vladva_clip.encoder.backbones.embedding_gemma2", "EmbeddingGemma2Backbone"),
    "idefics3": ("vladva_clip.encoder.backbones.smolvlm", "Idefics3Backbone"),
    "smolvlm": ("vladva_clip.encoder.backbones.smolvlm", "SmolVLMBackbone"),
    "llava_onevision": ("vladva_clip.encoder.backbones.llava_onevision", "LlavaOnevisionBackbone"),
}


def backbone_class(family: str) -> type[Backbone]:
    """Return the backbone class of a family (transformers' `model_type`).

    Raises:
        ValueError: an unsupported family; the supported ones are named.
    """
    if family not in FAMILIES:
        raise ValueError(f"the family {family!r} is not supported; {nearest(str(family), FAMILIES)}")
    module, name = FAMILIES[family]
    return getattr(importlib.import_module(module), name)
