"""SmolVLM and SmolVLM2: SigLIP vision tower, pixel shuffle, Llama. The first is of transformers' type `idefics3`."""

import typing

import torch
from torch import nn
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.storage.config import ImageConfig, positive
from vladva_clip.storage.fields import FLAG, Fields, Part, one_of, whole
from vladva_clip.storage.prompt_config import VisualSpan

_LLM: Fields = {
    **known.LLAMA,
    "perceiver_config": Part({}, optional=True),  # of an architecture that was given up; read nowhere
}
_VISION_TOWER: Fields = {
    **known.VISION_TOWER,
    # transformers builds its own tower whatever is stated
    "model_type": one_of("idefics3", "idefics3_vision", "smolvlm_vision", "siglip_vision_model"),
    "initializer_range": known.SPREAD,
}
_LANCZOS = 1  # transformers' default for these processors, in PIL's numbers
_GRID = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


class Idefics3Backbone(Backbone):
    """transformers' `Idefics3ForConditionalGeneration` behind the contract, with SmolVLM's chat.

    An image is one square: without transformers' splitting into tiles, which makes up to 17 squares of a photograph.
    """

    family = "idefics3"
    visual_span = VisualSpan("<image>", "<fake_token_around_image><global-img>", "<fake_token_around_image>")
    processor_span = VisualSpan("<image>")
    starts_with_bos = False  # the templates write it, as the published chat template does
    bos_token = None
    image_template = "<|im_start|>User: {prompt} {visual}<end_of_utterance>\nAssistant:"
    text_template = "<|im_start|>User: {prompt} {caption}<end_of_utterance>\nAssistant:"
    second_turn = "<end_of_utterance>\nUser: Describe the image in detail.<end_of_utterance>\nAssistant: {caption}"
    chat_template = "<|im_start|>User:{visual}{prompt}<end_of_utterance>\nAssistant:"
    eos_token = "<end_of_utterance>"
    control_tokens = (
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>"),
        *("<fake_token_around_image>", "<image>", "<global-img>", *_GRID),
    )
    tokenizer_classes = ("GPT2Tokenizer", "GPT2TokenizerFast")
    config_fields: typing.ClassVar[Fields] = {
        "model_type": one_of("idefics3"),
        "text_config": Part(_LLM),
        "vision_config": Part(_VISION_TOWER),
        "scale_factor": whole(1, 16),
        "image_token_id": known.TOKEN_ID,
        "tie_word_embeddings": FLAG,
        "pad_token_id": known.TOKEN_ID,
    }
    processor_fields: typing.ClassVar[Fields] = {
        **known.processor(
            ("Idefics3Processor", "SmolVLMProcessor"),
            tuple(
                f"{kind}ImageProcessor{ending}" for kind in ("Idefics3", "SmolVLM") for ending in ("", "Fast", "Pil")
            ),
        ),
        **{f"do_{name}": FLAG.or_null() for name in ("resize", "pad", "image_splitting")},
        "max_image_size": Part({"longest_edge": known.SIDE}, optional=True),
    }
    default_dtype = "bfloat16"

    @classmethod
    def lvlm_class(cls) -> type:
        return Idefics3ForConditionalGeneration

    @classmethod
    def image_config(cls, base_config: dict, processor_config: dict | None, size: int | None) -> ImageConfig:
        vision, where = base_config["vision_config"], "config.json: vision_config."
        largest, patch = (positive(vision, name, where) for name in ("image_size", "patch_size"))
        scale = positive(base_config, "scale_factor", "config.json: ", 2)
        stated = ((processor_config or {}).get("max_image_size") or {}).get("longest_edge")
        size = size or stated or largest
        if size > largest or size // patch == 0 or size // patch % scale:
            raise ValueError(
                f"image size is {size} pixels, expected {largest} at most, and a number of patches of {patch} pixels a "
                f"side that is a multiple of {scale} (scale_factor)"
            )
        unstated = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": _LANCZOS}
        return ImageConfig.of_processor({**unstated, **(processor_config or {})}, size, "squash")

    def pin_image_size(self, processor: typing.Any, image_size: int) -> None:
        settings = processor.image_processor
        settings.do_image_splitting = settings.do_resize = False  # what is left is one resize to a square
        settings.size = settings.max_image_size = {"longest_edge": image_size}
        processor.image_seq_len = self.num_visual_tokens(image_size)

    def check_parts(self, image_size: int) -> None:
        vision, text = self.lvlm.config.vision_config, self.lvlm.config.get_text_config()
        if vision.hidden_size % vision.num_attention_heads or text.num_attention_heads % text.num_key_value_heads:
            raise ValueError(
                f"the vision tower's width {vision.hidden_size} can't be divided among {vision.num_attention_heads} "
                f"heads, or the LLM's {text.num_attention_heads} heads among {text.num_key_value_heads} of keys"
            )
        if (image_size // vision.patch_size) ** 2 > known.MAX_PATCHES:
            raise ValueError(f"an image of {image_size} pixels makes more than {known.MAX_PATCHES} patches")

    @property
    def trunk_module(self) -> nn.Module:
        return self.lvlm.model.text_model

    @property
    def vision_tower(self) -> nn.Module:
        return self.lvlm.model.vision_model

    @property
    def vision_blocks(self) -> nn.ModuleList:
        return self.vision_tower.encoder.layers

    def num_visual_tokens(self, image_size: int) -> int:
        config = self.lvlm.config
        return (image_size // config.vision_config.patch_size // config.scale_factor) ** 2

    def visual_tokens(self, images: torch.Tensor) -> torch.Tensor:
        # not by transformers' get_image_features, which takes an image of zeros for padding and leaves it out
        seen = self.vision_tower(images.to(self.dtype)).last_hidden_state
        return self.lvlm.model.connector(seen)


class SmolVLMBackbone(Idefics3Backbone):
    """transformers' `SmolVLMForConditionalGeneration`, as SmolVLM2 is published: the same parts under another name."""

    family = "smolvlm"
    config_fields = {**Idefics3Backbone.config_fields, "model_type": one_of("smolvlm")}

    @classmethod
    def lvlm_class(cls) -> type:
        return SmolVLMForConditionalGeneration
