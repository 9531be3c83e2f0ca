"""LVLMs behind one contract; `backbone_class` finds the adapter of a family."""

import importlib

from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.storage.config import nearest

_CLASSES = {
    "llava": ("vladva_clip.encoder.backbones.llava", "LlavaBackbone"),
    "qwen2_vl": ("vladva_clip.encoder.backbones.qwen2_vl", "Qwen2VLBackbone"),
}
FAMILIES = tuple(_CLASSES)


def backbone_class(family: str) -> type[Backbone]:
    """Return the adapter class of a family (transformers' `model_type`).

    Raises:
        ValueError: an unsupported family; the supported ones are named.
    """
    if family not in _CLASSES:
        raise ValueError(f"the family {family!r} is not supported; {nearest(str(family), _CLASSES)}")
    module, name = _CLASSES[family]
    return getattr(importlib.import_module(module), name)
