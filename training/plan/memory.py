"""What a step needs, before anything is loaded: bytes per process.

No weights are held: the model is built on torch's meta device, and activations are counted by running its layers on
fake tensors, which have shapes but no content.
"""

import math
from dataclasses import dataclass, replace

from torch import nn

from vladva_clip.encoder.backbones.base import Backbone
from vladva_training.config import ModelSection, Recipe
from vladva_training.plan.fake_trunk import Shape, saved_by_layers
from vladva_training.step.half_precision import linear_weights
from vladva_training.step.trainable import set_backbone_trainable

# per weight: 4 bits, an 8-bit scale for 64 of them, a float32 for 256 scales (QLoRA, arXiv 2305.14314, section 3)
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Lengths:
    """Tokens per row: an image row up to its summary token, a long caption with its end of text, a text row.

    turn: tokens between the summary token and the long caption. If these are means, `long` and `turn` count an image
    without a long caption as 0 tokens.
    """

    image: int
    long: float
    text: float
    turn: float = 0

    def in_image_row(self, with_long: bool = True) -> float:
        """Return the tokens of an image row, with or without what stands behind the summary token."""
        return self.image + (self.turn + self.long if with_long else 0)


@dataclass(frozen=True)
class Share:
    """What one process computes in a step: its images, those in memory at a time, and text rows per image."""

    images: int
    micro: int
    texts_per_image: int

    @classmethod
    def of(cls, recipe: Recipe, world_size: int = 1) -> "Share":
        """Read it from a recipe, assuming that every image has all the captions that the loss uses.

        Raises:
            ValueError: the batch is not divisible by the number of processes.
        """
        if recipe.batch.size % world_size:
            raise ValueError(f"batch.size is {recipe.batch.size}, which {world_size} processes can't divide evenly")
        images = recipe.batch.size // world_size
        texts = 1 + (recipe.loss.text_text_weight > 0) + recipe.loss.hard_negatives
        return cls(images, min(images, recipe.batch.micro_size or images), texts)

    @property
    def grad_cache(self) -> bool:
        """Whether the share is computed in more than one micro-batch."""
        return self.micro < self.images


def add_trainable(backbone: Backbone, section: ModelSection) -> dict[str, nn.Parameter]:
    """Do to a model on the meta device what `step.trainable.load_trainable` does to a real one; in place.

    The only attention that is set is "eager": the others save the same tensors for the backward pass, and may need
    packages that are not installed.

    Returns:
        The LVLM's parameters that require gradients, by name.
    """
    set_backbone_trainable(backbone, section)
    if section.attention == "eager":
        backbone.lvlm.set_attn_implementation({"text_config": "eager"})
    return {name: parameter for name, parameter in backbone.named_parameters() if parameter.requires_grad}


@dataclass(frozen=True)
class Memory:
    """Predicted bytes of one process at the peak of a step.

    weights (of the model), gradients, optimizer (AdamW's two moments), average (EMA); of these only the process's part
    if they are sharded. gathered (of sharded weights, whole while they compute), visual_tokens (kept for the second
    pass of GradCache), activations (of one micro-batch, saved for its backward pass), logits (one chunk of the head's).
    Not included: the CUDA context (about half a GiB), the allocator's fragmentation (5 to 15%), a kernel's own working
    space, what the frozen vision tower needs while it runs (freed before the trunk starts), DDP's copy of the
    gradients.
    """

    weights: float
    gradients: float
    optimizer: float
    average: float
    gathered: float = 0
    visual_tokens: float = 0
    activations: float = 0
    logits: float = 0

    @property
    def total(self) -> float:
        """The sum, in bytes."""
        return sum(vars(self).values())


def is_sharded(recipe: Recipe, world_size: int) -> bool:
    """Whether the processes divide the weights, gradients and optimizer state among them (FSDP), or each holds all."""
    return recipe.model.train == "full" and world_size > 1


def lasting_memory(recipe: Recipe, backbone: Backbone, other_trainable: int, world_size: int = 1) -> Memory:
    """Return what a process holds when the optimizer steps, for any batch: exact, so no run can need less.

    weights = every parameter in its own dtype (LoRA and soft prompts float32; NF4 for the linear layers of a 4-bit
    base). gradients = the trained parameters once; optimizer = twice; average = once, with EMA. The rest is 0. Sharded,
    what trains is divided by the number of processes in all of them; frozen weights are whole in each.

    Args:
        recipe: of the run.
        backbone: on the meta device, after `add_trainable`.
        other_trainable: parameters outside the LVLM (soft prompts, scales), float32.
        world_size: number of processes.
    """
    parts = world_size if is_sharded(recipe, world_size) else 1
    trained = sum(p.numel() * p.itemsize for p in backbone.parameters() if p.requires_grad) + 4 * other_trainable
    frozen = _weight_bytes(backbone, recipe.model) + 4 * other_trainable - trained
    part = trained / parts
    return Memory(frozen + part, part, 2 * part, part if recipe.optim.ema_decay else 0)


def predict_memory(
    recipe: Recipe,
    backbone: Backbone,
    share: Share,
    lengths: Lengths,
    num_visual_tokens: int,
    other_trainable: int,
    world_size: int = 1,
) -> Memory:
    """Predict the bytes that a process needs: `lasting_memory`, and what the batch adds.

    visual tokens = images x `Backbone.visual_size` in the autocast's dtype, unless they are kept on the CPU.
    activations = what the trunk saves for the micro-batch's image rows and text rows, both padded to `lengths`; with
    gradient checkpointing, every layer's input and what one layer saves. logits = chunk x vocabulary, in float32 three
    times (logits, their softmax, its gradient) and in the autocast's dtype twice. gathered = of what is sharded,
    the parts outside the trunk's layers and the largest layer, weights and gradients, and a layer that is fetched
    ahead.

    Args:
        recipe: of the run.
        backbone: on the meta device, after `add_trainable`.
        share: what the process computes.
        lengths: the longest rows.
        num_visual_tokens: of an image.
        other_trainable: parameters outside the LVLM (soft prompts, scales), float32.
        world_size: number of processes.
    """
    width = 2 if recipe.batch.autocast == "bf16" else backbone.dtype.itemsize
    with_long = recipe.loss.ntp_weight > 0
    rows = [(share.micro, math.ceil(lengths.in_image_row(with_long)))]
    rows += [(share.micro * share.texts_per_image, math.ceil(lengths.text))]
    visual = 0 if share.grad_cache and recipe.batch.visual_cache == "cpu" else share.images
    labeled = min(recipe.loss.ntp_chunk, share.micro * math.ceil(lengths.long)) if with_long else 0
    return replace(
        lasting_memory(recipe, backbone, other_trainable, world_size),
        gathered=_gathered(backbone) if is_sharded(recipe, world_size) else 0,
        visual_tokens=visual * backbone.visual_size(num_visual_tokens) * width,
        activations=_activations(backbone, recipe, rows),
        logits=labeled * backbone.vocab_size * (3 * 4 + 2 * width),
    )


def saved_bytes(backbone: Backbone, rows: int, length: int, autocast: bool, depth: int | None = None) -> int:
    """Count the bytes that the trunk saves for its backward pass over `rows` rows of `length` tokens.

    It runs one and two layers on fake tensors, and assumes that the others are like the second. Each storage that
    autograd keeps counts once, without parameters. The result is the same on every device, except that a GPU's
    attention kernels save only about the same as the CPU's.

    Args:
        backbone: on the meta device, with what trains requiring gradients; unchanged.
        rows, length: shape of the rows.
        autocast: products in bfloat16.
        depth: number of layers, the trunk's own for None.
    """
    return _saved_bytes(backbone, [(rows, length)], autocast, depth)


def _weight_bytes(backbone: Backbone, section: ModelSection) -> float:
    whole = _num_bytes(backbone)
    if section.train != "qlora":
        return whole
    return whole - linear_weights(backbone.trunk_module) * (backbone.dtype.itemsize - NF4_BYTES)


def _gathered(backbone: Backbone) -> int:
    layers = [_num_bytes(layer) for layer in backbone.trunk_module.layers]
    trained = sum(p.numel() * p.itemsize for p in backbone.parameters() if p.requires_grad)
    return 2 * (trained - sum(layers)) + 3 * max(layers)


def _num_bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.itemsize for parameter in module.parameters())


def _activations(backbone: Backbone, recipe: Recipe, shapes: list[Shape]) -> float:
    autocast = recipe.batch.autocast == "bf16"
    if not recipe.model.gradient_checkpointing:
        return _saved_bytes(backbone, shapes, autocast)
    tokens = sum(rows * length for rows, length in shapes)
    inputs = len(backbone.trunk_module.layers) * tokens * backbone.hidden_dim * backbone.dtype.itemsize
    layer = max(_saved_bytes(backbone, [shape], autocast, depth=1) for shape in shapes)
    return inputs + max(layer, _copied_by_autocast(backbone) if autocast else 0)


def _saved_bytes(backbone: Backbone, shapes: list[Shape], autocast: bool, depth: int | None = None) -> int:
    depth = len(backbone.trunk_module.layers) if depth is None else depth
    one = saved_by_layers(backbone, 1, shapes, autocast)
    return one if depth == 1 else one + (depth - 1) * (saved_by_layers(backbone, 2, shapes, autocast) - one)


def _copied_by_autocast(backbone: Backbone) -> int:
    """Bytes of the bfloat16 copies of trained float32 matrices that autocast keeps until the forward ends."""
    layers = [module for module in backbone.trunk_module.modules() if isinstance(module, nn.Linear)]
    return sum(2 * layer.weight.numel() for layer in layers if layer.weight.requires_grad and layer.weight.itemsize > 2)
