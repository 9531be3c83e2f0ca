"""A generative vision-language model as a drop-in replacement for CLIP.

    model, preprocess = vladva_clip.create_model("vladva-tiny")
    tokenizer = vladva_clip.get_tokenizer("vladva-tiny")

The names below are imported on first use, so that `import vladva_clip` costs next to nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0.dev0"

_HOMES = {
    "create_model": "vladva_clip.factory",
    "create_model_and_transforms": "vladva_clip.factory",
    "create_model_from_pretrained": "vladva_clip.factory",
    "get_tokenizer": "vladva_clip.factory",
    "tokenize": "vladva_clip.factory",
    "get_model_config": "vladva_clip.factory",
    "list_models": "vladva_clip.sources.registry",
    "list_pretrained": "vladva_clip.sources.registry",
    "register": "vladva_clip.sources.registry",
    "VladvaCLIP": "vladva_clip.model",
    "VladvaConfig": "vladva_clip.storage.config",
    "VladvaTokenizer": "vladva_clip.encoder.tokenizer",
    "export_model": "vladva_clip.export.run",
    "write_card": "vladva_clip.hub.card",
    "truncate": "vladva_clip.compact",
    "quantize": "vladva_clip.compact",
    "dequantize": "vladva_clip.compact",
    "push_to_hub": "vladva_clip.hub.push",
    "pull_from_hub": "vladva_clip.hub.pull",
    "build_zero_shot_classifier": "vladva_clip.zero_shot.builder",
    "build_zero_shot_classifier_legacy": "vladva_clip.zero_shot.builder",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vladva_clip' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
