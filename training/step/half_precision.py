"""Why nothing is trained over float16 weights."""

import torch
from torch import nn

from vladva_clip.encoder.backbones.base import Backbone
from vladva_training.config import ModelSection
from vladva_training.processes.machine import in_words

COPIES = 2  # in bfloat16, under autocast: one that the image rows keep for their backward pass, one of the text rows


def refuse_float16(backbone: Backbone, section: ModelSection) -> None:
    """Refuse float16 weights under what trains. Full tuning makes float32 of them, without a loss, and may have them.

    Args:
        backbone: loaded, or on the meta device.
        section: what of it trains.

    Raises:
        ValueError: the weights are in float16: why they can't be, what they would cost, what to take.
    """
    if backbone.dtype != torch.float16 or section.train == "full":
        return
    stated = f"model.precision={section.precision}" if section.precision else f"the dtype of {section.name}"
    cost = COPIES * torch.bfloat16.itemsize * linear_weights(backbone.trunk_module)
    copies = f"; under bfloat16 products a step would hold {COPIES} bfloat16 copies of the LLM too ({in_words(cost)})"
    raise ValueError(
        f"the frozen weights are to be float16 ({stated}): training has no loss scaling, without which float16 "
        f"gradients vanish or overflow{copies if section.train != 'qlora' else ''}. Take model.precision=bf16, whose "
        "weights are as small, or fp32"
    )


def linear_weights(module: nn.Module) -> int:
    """Count the weights of the linear layers in a module, LoRA apart."""
    return sum(
        layer.weight.numel()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and "lora_" not in name
    )
