"""Bytes that a micro-batch needs beside the weights at inference, from the shapes in a config.json. Needs no torch.

Counted are the tensors alive at once in transformers' code under `no_grad`, in the part of the model that needs most:
the vision tower's rotation of queries and keys, its feed-forward layers, or the language model's feed-forward layers.
Attention runs as scaled_dot_product_attention, whose T x T scores are never held.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Vision:
    """The vision side for one image.

    patches: tokens of the tower in all crops, class tokens included. width, feed_forward: of a block. gated: whether
    the feed-forward layer multiplies two branches; sigmoid: whether its activation takes two passes (quick_gelu). head:
    the width of a head whose queries and keys are rotated in float32; 0 where none are. held: numbers per patch that
    are held while the tower runs. float32: of these, numbers in float32 whatever the model's dtype. visual_tokens: what
    enters the language model. maps: numbers per image for the layers of the language model (DeepStack).
    """

    patches: int
    width: int
    feed_forward: int
    visual_tokens: int
    gated: bool = False
    sigmoid: bool = False
    head: int = 0
    held: int = 0
    float32: int = 0
    maps: int = 0

    def bytes(self, images: int, itemsize: int) -> int:
        """Return the peak of the tower over so many images, in elements of `itemsize` bytes."""
        held = self.held * itemsize + (self.float32 + 2 * self.head) * FLOAT32  # with the rotation's cos and sin
        layer = max(self._rotating(itemsize), self._feeding(itemsize))
        return images * (self.patches * (held + layer) + self.maps * itemsize)

    def _rotating(self, itemsize: int) -> int:
        """Residual, normalized input, queries with keys and values, float32 copies of two, and four temporaries."""
        copies = 2 if itemsize < FLOAT32 else 0
        return self.width * (5 * itemsize + (copies + 4) * FLOAT32) if self.head else 0

    def _feeding(self, itemsize: int) -> int:
        """The block's input, residual, normalized residual, and the wide tensors alive at once."""
        wide = 3 if self.gated or self.sigmoid else 2
        return (3 * self.width + wide * self.feed_forward) * itemsize


@dataclass(frozen=True)
class Trunk:
    """The language model without its head: its width, and that of its gated feed-forward layers.

    head: the width of a head, summed over the kinds of layers that differ in it. held: numbers per token that are held
    while all layers run (per-layer embeddings).
    """

    width: int
    feed_forward: int
    head: int
    held: int = 0

    def bytes(self, tokens: int, itemsize: int) -> int:
        """Return the peak over so many tokens: a feed-forward layer.

        Alive are the rows' embeddings, the layer's input, residual and normalized residual; two branches and their
        product; the rotation's cos and sin.
        """
        return tokens * (4 * self.width + 3 * self.feed_forward + 2 * self.head + self.held) * itemsize


def trunk_of(config: dict[str, Any]) -> Trunk:
    """Read the language model of a config.json."""
    text = config.get("text_config") or config
    width = text["hidden_size"]
    heads = {text.get("head_dim") or width // text["num_attention_heads"]}
    heads |= {layer["head_dim"] for layer in (text.get("per_layer_config") or {}).values() if "head_dim" in layer}
    per_layer = text.get("hidden_size_per_layer_input")  # Gemma's
    held = text["num_hidden_layers"] * per_layer if per_layer else 0
    return Trunk(width, text["intermediate_size"], sum(heads), held)


def vision_of(config: dict[str, Any], image_size: int) -> Vision | None:
    """Read the vision side of a config.json for square images of so many pixels; None for a family not known here."""
    read = _READERS.get(config["model_type"])
    return read(config, image_size) if read else None


def _llava(config: dict[str, Any], image_size: int) -> Vision:
    tower = config["vision_config"]
    tokens = (image_size // tower["patch_size"]) ** 2
    width = tower["hidden_size"]  # held: the output of the chosen layer (transformers before 5.24 holds all layers')
    return Vision(tokens + 1, width, tower["intermediate_size"], tokens, sigmoid=True, held=width)


def _llava_next(config: dict[str, Any], image_size: int) -> Vision:
    tower = config["vision_config"]
    tiles, whole = (image_size // tower["image_size"]) ** 2, _llava(config, tower["image_size"])
    if tiles == 1:
        return whole
    tokens = (1 + tiles) * whole.visual_tokens + image_size // tower["patch_size"]
    held = whole.held + 3 * tower["patch_size"] ** 2  # the crops
    return replace(whole, patches=(1 + tiles) * whole.patches, visual_tokens=tokens, held=held)


def _qwen(config: dict[str, Any], image_size: int, width: str = "hidden_size", **given: Any) -> Vision:
    tower = config["vision_config"]
    merge, patch = tower["spatial_merge_size"], tower["patch_size"]
    patches = (image_size // patch) ** 2
    return Vision(
        patches,
        tower[width],
        given.pop("feed_forward", None) or tower["intermediate_size"],
        patches // merge**2,
        head=tower[width] // tower["num_heads"],
        held=3 * tower["temporal_patch_size"] * patch**2,  # the cut patches
        **given,
    )


def _qwen2(config: dict[str, Any], image_size: int) -> Vision:
    tower = config["vision_config"]
    wide = int(tower["embed_dim"] * tower["mlp_ratio"])
    return _qwen(config, image_size, "embed_dim", feed_forward=wide, sigmoid=True)


def _qwen2_5(config: dict[str, Any], image_size: int) -> Vision:
    return _qwen(config, image_size, gated=True)


def _qwen3(config: dict[str, Any], image_size: int) -> Vision:
    tower = config["vision_config"]
    patches = (image_size // tower["patch_size"]) ** 2
    maps = (
        len(tower["deepstack_visual_indexes"]) * tower["out_hidden_size"] * patches // tower["spatial_merge_size"] ** 2
    )
    return _qwen(config, image_size, float32=tower["hidden_size"], maps=maps)  # float32: the learned positions


def _internvl(config: dict[str, Any], image_size: int) -> Vision:
    tower = config["vision_config"]
    patch = tower["patch_size"]
    patches, width = (image_size // (patch if isinstance(patch, int) else patch[0])) ** 2, tower["hidden_size"]
    # held: the first block's input, and in each block the attention's output
    return Vision(patches + 1, width, tower["intermediate_size"], patches // 4, held=2 * width)


def _llava_onevision(config: dict[str, Any], image_size: int) -> Vision:
    tower = config["vision_config"]
    patches, width = (image_size // tower["patch_size"]) ** 2, tower["hidden_size"]  # held: the first block's input
    return Vision(patches, width, tower["intermediate_size"], patches + 1, held=width)


def _gemma4(config: dict[str, Any], image_size: int) -> Vision:
    tower = config["vision_config"]
    patches = (image_size // tower["patch_size"]) ** 2
    return Vision(
        patches,
        tower["hidden_size"],
        tower["intermediate_size"],
        patches // tower["pooling_kernel_size"] ** 2,
        gated=True,
        held=3 * tower["patch_size"] ** 2 + tower["hidden_size"] + 2 * tower["head_dim"],  # patches, input, cos and sin
    )


def _smolvlm(config: dict[str, Any], image_size: int) -> Vision:
    tower = config["vision_config"]
    side, width = image_size // tower["patch_size"], tower["hidden_size"]  # held: the first block's input
    return Vision(side**2, width, tower["intermediate_size"], (side // config["scale_factor"]) ** 2, held=width)


_READERS: dict[str, Callable[[dict[str, Any], int], Vision]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "qwen2_vl": _qwen2,
    "qwen2_5_vl": _qwen2_5,
    "qwen3_vl": _qwen3,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "embedding_gemma2": _gemma4,
    **dict.fromkeys(("idefics3", "smolvlm"), _smolvlm),
}
