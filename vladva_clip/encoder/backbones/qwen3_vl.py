"""Qwen3-VL (dense): Qwen2-VL's rows and positions, and feature maps of the vision tower for the LLM's first layers."""

import math
import typing
from dataclasses import dataclass

import torch
from transformers import Qwen3VLForConditionalGeneration

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.qwen2_vl import Qwen2VLBackbone, check_tower_widths
from vladva_clip.storage.fields import FLAG, Fields, Part, list_of, one_of, whole

# transformers always interleaves the three axes, and reads `mrope_interleaved` nowhere
_ROPE = Part({**known.ROPE, "mrope_interleaved": one_of(True)}, optional=True)
_LLM: Fields = {
    **known.LLM,
    "model_type": one_of("qwen3_vl_text"),
    "head_dim": known.WIDTH,
    "attention_bias": FLAG,
    "rope_scaling": _ROPE,
    "rope_parameters": _ROPE,
}
_VISION_TOWER: Fields = {
    "model_type": one_of("qwen3_vl", "qwen3_vl_vision"),
    **{name: known.WIDTH for name in ("hidden_size", "out_hidden_size")},
    "intermediate_size": known.FEED_FORWARD,
    "depth": known.LAYERS,
    "num_heads": known.HEADS,
    "in_channels": one_of(3),
    "patch_size": known.PATCH,
    **{name: whole(1, 8) for name in ("spatial_merge_size", "temporal_patch_size")},
    "num_position_embeddings": whole(1, 1 << 20),
    "deepstack_visual_indexes": list_of(whole(0, known.MAX_LAYERS - 1), 16),
    # transformers 5.24 reads it; earlier releases use this value
    "rope_parameters": Part({"rope_type": one_of("axial"), "rope_theta": one_of(10000.0, 10000)}, optional=True),
    "hidden_act": known.ACTIVATION,
    "initializer_range": known.SPREAD,
}


@dataclass(frozen=True)
class TokensAndMaps:
    """Visual tokens `(B, N, D)`, and as many vectors for the output of each of the LLM's first layers (DeepStack)."""

    tokens: torch.Tensor
    maps: tuple[torch.Tensor, ...]

    def to(self, device: torch.device | str) -> "TokensAndMaps":
        """Return all of them on another device."""
        return TokensAndMaps(self.tokens.to(device), tuple(one.to(device) for one in self.maps))


class Qwen3VLBackbone(Qwen2VLBackbone):
    """transformers' `Qwen3VLForConditionalGeneration` behind the contract, at one fixed square resolution."""

    family = "qwen3_vl"
    family_name = "Qwen3-VL"
    usual_patches = {**Qwen2VLBackbone.usual_patches, "patch_size": 16}  # the published ones
    # the published chat template has no system message of its own
    chat_template = "<|im_start|>user\n{visual}{prompt}<|im_end|>\n<|im_start|>assistant\n"
    config_fields = {
        "model_type": one_of("qwen3_vl"),
        "text_config": Part(_LLM),
        "vision_config": Part(_VISION_TOWER),
        "tie_word_embeddings": FLAG,
        **{f"{name}_token_id": known.TOKEN_ID for name in ("image", "video", "vision_start", "vision_end")},
    }
    processor_fields = {**Qwen2VLBackbone.processor_fields, "processor_class": one_of("Qwen3VLProcessor").or_null()}
    poor_dtypes = {}

    @classmethod
    def lvlm_class(cls) -> type:
        return Qwen3VLForConditionalGeneration

    def check_parts(self, image_size: int) -> None:
        super().check_parts(image_size)
        vision, text = self.lvlm.config.vision_config, self.lvlm.config.get_text_config()
        check_tower_widths(vision, self.hidden_dim)
        blocks, table = list(vision.deepstack_visual_indexes), vision.num_position_embeddings
        if math.isqrt(table) ** 2 != table:
            raise ValueError(f"num_position_embeddings is {table}, expected the number of cells of a square")
        if blocks != sorted(set(blocks)) or max(blocks, default=0) >= vision.depth:
            raise ValueError(
                f"deepstack_visual_indexes is {blocks}, expected ascending indexes of the vision tower's "
                f"{vision.depth} blocks, from 0"
            )
        if len(blocks) > text.num_hidden_layers:
            raise ValueError(
                f"deepstack_visual_indexes names {len(blocks)} blocks, expected at most one for each of the LLM's "
                f"{text.num_hidden_layers} layers"
            )

    @property
    def vision_width(self) -> int:
        return self.lvlm.config.vision_config.hidden_size

    @property
    def head_width(self) -> int:
        return self.lvlm.config.get_text_config().head_dim

    def visual_tokens(self, images: torch.Tensor) -> TokensAndMaps:
        seen = self.tower_output(images)
        tokens, *maps = (
            one.view(images.shape[0], -1, one.shape[-1]) for one in (seen.pooler_output, *seen.deepstack_features)
        )
        return TokensAndMaps(tokens, tuple(maps))

    def slot_vectors(self, visual: TokensAndMaps) -> torch.Tensor:
        return visual.tokens

    def trunk_inputs(self, visual: TokensAndMaps, visual_mask: torch.Tensor) -> dict[str, typing.Any]:
        maps = [one.flatten(0, 1) for one in visual.maps]
        return {"visual_pos_masks": visual_mask, "deepstack_visual_embeds": maps}

    def visual_size(self, num_visual_tokens: int) -> int:
        maps = len(self.lvlm.config.vision_config.deepstack_visual_indexes)
        return (1 + maps) * super().visual_size(num_visual_tokens)

    def trunk(
        self,
        embeddings: torch.Tensor,
        position_ids: torch.Tensor,
        cache: typing.Any = None,
        **trunk_inputs: typing.Any,
    ) -> torch.Tensor:
        # Without mask and cache, transformers before 5.3 takes the first row of positions for that of several packed
        # texts, and hides an image's tokens from each other (huggingface/transformers#44158). A fourth row in front, as
        # its own generate passes it, is read for that alone, in every release. Text rows count their tokens anyway.
        if cache is None and "visual_pos_masks" in trunk_inputs:
            counted = torch.arange(position_ids.shape[-1], device=position_ids.device).expand_as(position_ids[:1])
            position_ids = torch.cat([counted, position_ids])
        return super().trunk(embeddings, position_ids, cache, **trunk_inputs)
