"""The check that refuses to train on top of float16 weights."""

import torch
from torch import nn

from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.interface.machine import in_words
from vladva_training.config import ModelSection

COPIES = 2  # in bfloat16, under autocast: one that the image rows keep for their backward pass, one for the text rows


def refuse_float16(backbone: Backbone, section: ModelSection) -> None:
    """Refuse frozen float16 weights. Full tuning converts them to float32 exactly, so it may start from them.

    Args:
        backbone: loaded, or on the meta device.
        section: what trains.

    Raises:
        ValueError: the weights are in float16; says why that can't work, what it would cost, and what to use.
    """
    if backbone.dtype != torch.float16 or section.train == "full":
        return
    stated = f"model.precision={section.precision}" if section.precision else f"the dtype of {section.name}"
    cost = COPIES * torch.bfloat16.itemsize * linear_weights(backbone.trunk_module)
    copies = f"; bfloat16 products would also keep {COPIES} bfloat16 copies of the LLM ({in_words(cost)})"
    raise ValueError(
        f"the frozen weights would be float16 ({stated}): training has no loss scaling, without which float16 "
        f"gradients vanish or overflow{copies if section.train != 'qlora' else ''}. Use model.precision=bf16, which is "
        "as small, or fp32"
    )


def linear_weights(module: nn.Module) -> int:
    """Count the weights of the linear layers in a module, without LoRA."""
    return sum(
        layer.weight.numel()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and "lora_" not in name
    )
