"""InternVL (transformers' own format): InternViT, its patches merged 2 x 2, a two-layer projector, Qwen2."""

import typing

import torch
from torch import nn
from transformers import InternVLForConditionalGeneration

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.llava import check_sides
from vladva_clip.encoder.backbones.qwen2_vl import LLM_FIELDS, Qwen2VLBackbone
from vladva_clip.storage.config import ImageConfig
from vladva_clip.storage.fields import FLAG, Check, Fields, Part, list_of, one_of, whole
from vladva_clip.storage.prompt_config import VisualSpan


def _square(side: Check) -> Check:
    """A side in pixels, or the list of two that transformers writes."""
    pair = list_of(side, 2)
    return Check(
        f"{side.expected}, or a list of two equal ones",
        lambda value: side.holds(value) or (pair.holds(value) and len(value) == 2 and value[0] == value[1]),
    )


# The published files scale positions by `dynamic`, which changes nothing up to `max_position_embeddings`.
_ROPE = Part({**known.ROPE, **{name: one_of("default", "dynamic") for name in ("type", "rope_type")}}, optional=True)
_LLM: Fields = {**LLM_FIELDS, "model_type": one_of("qwen2"), "rope_scaling": _ROPE, "rope_parameters": _ROPE}
_VISION_TOWER: Fields = {
    "model_type": one_of("internvl_vision"),
    "hidden_size": known.WIDTH,
    "intermediate_size": known.FEED_FORWARD,
    "num_hidden_layers": known.LAYERS,
    "num_attention_heads": known.HEADS,
    "num_channels": one_of(3),
    "image_size": _square(known.SIDE),
    "patch_size": _square(known.PATCH),
    "hidden_act": known.ACTIVATION,
    "norm_type": one_of("layer_norm", "rms_norm"),
    "layer_norm_eps": known.FRACTION,
    "use_mask_token": one_of(False),
    **{f"use_{name}": FLAG for name in ("absolute_position_embeddings", "mean_pooling", "qk_norm")},
    "attention_bias": FLAG,
    **{name: known.FRACTION for name in ("attention_dropout", "hidden_dropout_prob", "projection_dropout")},
    **{name: known.SPREAD for name in ("initializer_range", "layer_scale_init_value")},
}
_COLORS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}  # as published


class InternVLBackbone(Backbone):
    """transformers' `InternVLForConditionalGeneration` behind the contract: one square picture, never tiles of it."""

    family = "internvl"
    visual_span = VisualSpan("<IMG_CONTEXT>", "<img>", "</img>")
    processor_span = VisualSpan("<IMG_CONTEXT>")
    starts_with_bos = False
    bos_token = None
    image_template = Qwen2VLBackbone.image_template
    text_template = Qwen2VLBackbone.text_template
    second_turn = Qwen2VLBackbone.second_turn
    chat_template = "<|im_start|>user\n{visual}\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    eos_token = "<|im_end|>"
    control_tokens = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
    tokenizer_classes = Qwen2VLBackbone.tokenizer_classes
    config_fields = {
        "model_type": one_of("internvl"),
        "text_config": Part(_LLM),
        "vision_config": Part(_VISION_TOWER),
        "image_token_id": known.TOKEN_ID,
        "image_seq_length": whole(1, known.MAX_POSITIONS),
        "downsample_ratio": one_of(0.5),
        "projector_hidden_act": known.ACTIVATION,
        "vision_feature_layer": one_of(-1),
        "vision_feature_select_strategy": one_of("default"),
        "tie_word_embeddings": FLAG,
    }
    # transformers 4, which wrote the published files, left it out; transformers 5 would tie the head
    implied_config = {"tie_word_embeddings": False}
    processor_fields = {
        **known.processor(
            ("InternVLProcessor",), tuple(f"GotOcr2ImageProcessor{ending}" for ending in ("", "Fast", "Pil"))
        ),
        "image_seq_length": whole(1, known.MAX_POSITIONS),
    }
    default_dtype = "bfloat16"

    def __init__(self, lvlm: nn.Module) -> None:
        super().__init__(lvlm)
        # Otherwise transformers asks in each forward whether a row is longer than `max_position_embeddings`, and if so
        # turns the positions of all rows differently, so that a feature would depend on its batch.
        self.trunk_module.rotary_emb.rope_type = "default"

    @classmethod
    def lvlm_class(cls) -> type:
        return InternVLForConditionalGeneration

    @classmethod
    def image_config(cls, base_config: dict, processor_config: dict | None, size: int | None) -> ImageConfig:
        fixed = _side(base_config["vision_config"].get("image_size", 448))
        if size not in (None, fixed):
            raise ValueError(f"image size is {size} pixels; this base's vision tower takes {fixed} only")
        check_sides((processor_config or {}).get("size"), "size", fixed)
        return ImageConfig.of_processor(processor_config or _COLORS, fixed, "squash")

    def pin_image_size(self, processor: typing.Any, image_size: int) -> None:
        # transformers' processor asks for tiles whatever the file says, but for no more than it allows
        processor.image_processor.size = {"height": image_size, "width": image_size}
        processor.image_processor.min_patches = processor.image_processor.max_patches = 1

    def check_parts(self, image_size: int) -> None:
        text, patch = self.lvlm.config.get_text_config(), _side(self.lvlm.config.vision_config.patch_size)
        if text.hidden_size % text.num_attention_heads:
            raise ValueError(
                f"the LLM's hidden_size is {text.hidden_size}, expected a multiple of its {text.num_attention_heads} "
                "heads"
            )
        if image_size // patch % 2 or (image_size // patch) ** 2 > known.MAX_PATCHES:
            raise ValueError(
                f"an image of {image_size} pixels has {image_size // patch} patches a side, expected an even number "
                f"and at most {known.MAX_PATCHES} in all"
            )
        stated, found = self.lvlm.config.image_seq_length, self.num_visual_tokens(image_size)
        if stated != found:
            raise ValueError(f"image_seq_length is {stated}, but an image of {image_size} pixels makes {found} tokens")

    @property
    def vision_tower(self) -> nn.Module:
        return self.lvlm.model.vision_tower

    @property
    def vision_blocks(self) -> nn.ModuleList:
        return self.vision_tower.encoder.layer

    def num_patches(self, image_size: int) -> int:
        return (image_size // _side(self.lvlm.config.vision_config.patch_size)) ** 2

    def num_visual_tokens(self, image_size: int) -> int:
        return self.num_patches(image_size) // 4  # merged 2 x 2

    def visual_tokens(self, images: torch.Tensor) -> torch.Tensor:
        return self.lvlm.model.get_image_features(images, return_dict=True).pooler_output


def _side(stated: int | typing.Sequence[int]) -> int:
    """Return a side in pixels, stated as one number or as two equal ones."""
    return stated if isinstance(stated, int) else stated[0]
