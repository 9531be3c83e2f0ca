"""Floating-point operations of a step, before anything is loaded."""

from torch import nn

from vladva_clip.encoder.backbones.base import Backbone
from vladva_training.config import Recipe
from vladva_training.plan.memory import Lengths, Share
from vladva_training.step.half_precision import linear_weights


def step_flops(recipe: Recipe, backbone: Backbone, share: Share, mean: Lengths, image_size: int) -> float:
    """Predict the floating-point operations of one process's share of a step.

    Let N be the trunk's linear weights and n those of its LoRA. A row of T tokens costs 2 (N + n) T + 2 T^2 W L forward
    (causal attention, W its width, L layers), with twice the attention where it is bidirectional. Backward it costs
    2 N T if the base is frozen and 4 N T if it trains, 4 n T, and twice the attention. Image rows and text rows cost
    this once; GradCache's first pass adds a forward of both (without long captions), and gradient checkpointing another
    one, without each block's last product. The head costs 2 D V per labeled token, forward and backward; the vision
    tower runs forward once per image, as GradCache keeps its tokens. Norms, activation functions, the first layer of
    the vision tower, the projector (0.1% in the 7B) and padding are not counted.

    Args:
        recipe: of the run.
        backbone: on the meta device, after `add_trainable`.
        share: what the process computes.
        mean: the mean rows.
        image_size: pixels.
    """
    with_long, full = recipe.loss.ntp_weight > 0, recipe.model.train == "full"
    rows = [(share.images, mean.in_image_row(with_long)), (share.images * share.texts_per_image, mean.text)]
    first_pass = [(share.images, mean.image), rows[1]] if share.grad_cache else []
    forward = sum(count * _forward(backbone, length) for count, length in [*rows, *first_pass])
    if recipe.model.gradient_checkpointing:
        forward += sum(count * _again(backbone, length) for count, length in rows)
    backward = sum(count * _backward(backbone, length, full) for count, length in rows)
    labeled = share.images * mean.long if with_long else 0
    head = 2 * backbone.hidden_dim * backbone.vocab_size * labeled * (2 + full)
    return forward + backward + head + share.images * _vision_flops(backbone, image_size)


def lora_weights(module: nn.Module) -> int:
    """Count the LoRA weights in a module."""
    return sum(parameter.numel() for name, parameter in module.named_parameters() if "lora_" in name)


def _forward(backbone: Backbone, length: float) -> float:
    trunk = backbone.trunk_module
    return 2 * (linear_weights(trunk) + lora_weights(trunk)) * length + _attention(backbone, length)


def _again(backbone: Backbone, length: float) -> float:
    """Operations of a checkpointed row's second forward, without each block's last product: nothing saved needs it."""
    left_out = sum(map(_last_linear, backbone.trunk_module.layers))
    return _forward(backbone, length) - 2 * left_out * length


def _last_linear(block: nn.Module) -> int:
    return [layer for layer in block.modules() if isinstance(layer, nn.Linear)][-1].weight.numel()


def _backward(backbone: Backbone, length: float, full: bool) -> float:
    trunk = backbone.trunk_module
    weights = (4 if full else 2) * linear_weights(trunk) + 4 * lora_weights(trunk)
    return weights * length + 2 * _attention(backbone, length)


def _attention(backbone: Backbone, length: float) -> float:
    width = sum(layer.self_attn.q_proj.out_features for layer in backbone.trunk_module.layers)
    pairs = length**2 if backbone.attends_both_ways else length**2 / 2
    return 4 * pairs * width


def _vision_flops(backbone: Backbone, image_size: int) -> float:
    crops, patches = backbone.num_crops(image_size), backbone.num_patches(image_size)
    width = next(layer.in_features for layer in backbone.vision_blocks.modules() if isinstance(layer, nn.Linear))
    attention = 4 * patches**2 * width * len(backbone.vision_blocks)
    return crops * (2 * linear_weights(backbone.vision_blocks) * patches + attention)
