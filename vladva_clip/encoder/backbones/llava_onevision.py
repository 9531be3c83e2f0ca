"""LLaVA-OneVision: SigLIP vision tower, two-layer projector, Qwen2. An image is one crop, never tiles of it."""

import typing
from pathlib import Path

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.llava import LlavaBackbone, fixed_side
from vladva_clip.encoder.backbones.qwen2_vl import LLM_FIELDS, Qwen2VLBackbone
from vladva_clip.storage.config import ImageConfig
from vladva_clip.storage.fields import FLAG, Check, Fields, Part, one_of

_LLM: Fields = {**LLM_FIELDS, "model_type": one_of("qwen2")}
_VISION_TOWER: Fields = {
    **known.VISION_TOWER,
    "model_type": one_of("siglip_vision_model"),
    "vision_use_head": FLAG,  # nothing reads it
}
_SIDES = {"height", "width"}
_SQUARE = Check(
    "an object of height and width in pixels",
    lambda size: isinstance(size, dict) and set(size) == _SIDES and all(map(known.SIDE.holds, size.values())),
)
_COLORS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # as published


class LlavaOnevisionBackbone(LlavaBackbone):
    """transformers' `LlavaOnevisionForConditionalGeneration` behind the contract, with one crop for an image.

    That is how the model sees each of several images in a message: the tower's tokens, and the vector `image_newline`
    behind them. Of a picture by itself, transformers' processor makes tiles as well, at any size; they are not built.
    """

    family = "llava_onevision"
    starts_with_bos = False
    bos_token = None
    image_template = Qwen2VLBackbone.image_template
    text_template = Qwen2VLBackbone.text_template
    second_turn = Qwen2VLBackbone.second_turn
    chat_template = "<|im_start|>user\n{visual}\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    eos_token = "<|im_end|>"
    control_tokens = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
    tokenizer_classes = Qwen2VLBackbone.tokenizer_classes
    config_fields = {
        **LlavaBackbone.config_fields,
        "model_type": one_of("llava_onevision"),
        "text_config": Part(_LLM),
        "vision_config": Part(_VISION_TOWER),
        **{f"video_token_{end}": known.TOKEN_ID for end in ("index", "id")},
        "vision_feature_select_strategy": one_of("full"),  # the tower has no class token
    }
    processor_fields = {
        **known.processor(
            ("LlavaOnevisionProcessor",), tuple(f"LlavaOnevisionImageProcessor{end}" for end in ("", "Fast", "Pil"))
        ),
        "size": _SQUARE.or_null(),
        "do_pad": FLAG.or_null(),  # with whole crops that are missing, which one crop never is
    }

    not_exported = (
        "transformers' own processor of LLaVA-OneVision always cuts tiles of a picture by itself, at any size, but an "
        "image is one crop here"
    )

    @classmethod
    def lvlm_class(cls) -> type:
        return LlavaOnevisionForConditionalGeneration

    @classmethod
    def image_config(cls, base_config: dict, processor_config: dict | None, size: int | None) -> ImageConfig:
        fixed = fixed_side(base_config, processor_config, size)
        return ImageConfig.of_processor(processor_config or _COLORS, fixed, "squash")

    @classmethod
    def from_directory(
        cls, directory: Path, base_config: dict, *arguments: typing.Any, **options: typing.Any
    ) -> Backbone:
        return super().from_directory(directory, _tied_as_the_llm(base_config), *arguments, **options)

    @classmethod
    def from_config(cls, base_config: dict, *arguments: typing.Any, **options: typing.Any) -> Backbone:
        return super().from_config(_tied_as_the_llm(base_config), *arguments, **options)

    def check_parts(self, image_size: int) -> None:
        super().check_parts(image_size)
        text, patches = self.lvlm.config.get_text_config(), self.num_patches(image_size)
        if text.hidden_size % text.num_attention_heads:
            raise ValueError(
                f"the LLM's hidden_size is {text.hidden_size}, expected a multiple of its {text.num_attention_heads} "
                "heads"
            )
        if not 0 < patches <= known.MAX_PATCHES:
            raise ValueError(
                f"an image of {image_size} pixels makes {patches} patches, expected 1 to {known.MAX_PATCHES}"
            )

    def num_visual_tokens(self, image_size: int) -> int:
        return self.num_patches(image_size) + 1  # the newline

    def visual_tokens(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.projected(images)
        newline = self.lvlm.model.image_newline.to(seen.dtype).expand(seen.shape[0], 1, -1)
        return torch.cat([seen, newline], dim=1)


def _tied_as_the_llm(config: dict) -> dict:
    """State at the top that the head is tied where the LLM's settings alone say so; transformers 5.0 reads the top."""
    tied = config.get("tie_word_embeddings") or config["text_config"].get("tie_word_embeddings")
    return {**config, "tie_word_embeddings": bool(tied)}
