"""Qwen2-VL: patches with 2-D rotary positions, merged 2 x 2, and an LLM with multimodal rotary positions (M-RoPE)."""

import math
import typing

import torch
from torch import nn
from transformers import Qwen2VLForConditionalGeneration

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.recording import is_exporting
from vladva_clip.storage.config import ImageConfig, positive
from vladva_clip.storage.fields import FLAG, Fields, Part, list_of, one_of, real, whole
from vladva_clip.storage.prompt_config import VisualSpan

LLM_FIELDS: Fields = {
    **known.LLM,
    "use_sliding_window": FLAG.or_null(),
    "sliding_window": known.POSITIONS.or_null(),
    "max_window_layers": whole(0, known.MAX_LAYERS).or_null(),
    "layer_types": list_of(one_of("full_attention", "sliding_attention"), known.MAX_LAYERS).or_null(),
}
_VISION_TOWER: Fields = {
    "model_type": one_of("qwen2_vl", "qwen2_vl_vision"),
    **{name: known.WIDTH for name in ("embed_dim", "hidden_size")},
    "depth": known.LAYERS,
    "num_heads": known.HEADS,
    "mlp_ratio": real(0, 64),
    "in_channels": one_of(3),
    "patch_size": known.PATCH,
    **{name: whole(1, 8) for name in ("spatial_merge_size", "temporal_patch_size")},
    # transformers 5.24 reads it; earlier releases use this value
    "rope_parameters": Part(
        {"rope_type": one_of("axial", "default"), "rope_theta": one_of(10000.0, 10000)}, optional=True
    ),
    "hidden_act": known.ACTIVATION,
    "initializer_range": known.SPREAD,
}


class Qwen2VLBackbone(Backbone):
    """transformers' `Qwen2VLForConditionalGeneration` behind the contract, at one fixed square resolution."""

    family = "qwen2_vl"
    family_name: typing.ClassVar[str] = "Qwen2-VL"  # as published
    # transformers' own settings of the image processor, for files that leave them out
    usual_patches: typing.ClassVar[dict[str, int]] = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    visual_span = VisualSpan("<|image_pad|>", "<|vision_start|>", "<|vision_end|>")
    starts_with_bos = False
    bos_token = None
    image_template = "<|im_start|>user\n{prompt} {visual}<|im_end|>\n<|im_start|>assistant\n"
    text_template = "<|im_start|>user\n{prompt} {caption}<|im_end|>\n<|im_start|>assistant\n"
    second_turn = (
        "<|im_end|>\n<|im_start|>user\nDescribe the image in detail.<|im_end|>\n<|im_start|>assistant\n{caption}"
    )
    # with the system message of the published chat template
    chat_template = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{visual}{prompt}<|im_end|>\n<|im_start|>assistant\n"
    )
    eos_token = "<|im_end|>"
    control_tokens = (
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    )
    tokenizer_classes = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
    config_fields = {
        **LLM_FIELDS,  # the published files are flat
        "model_type": one_of("qwen2_vl"),
        "text_config": Part({**LLM_FIELDS, "model_type": one_of("qwen2_vl_text", "qwen2_vl")}, optional=True),
        "vision_config": Part(_VISION_TOWER),
        **{f"{name}_token_id": known.TOKEN_ID for name in ("image", "video", "vision_start", "vision_end")},
    }
    processor_fields = known.processor(
        ("Qwen2VLProcessor",), tuple(f"Qwen2VLImageProcessor{ending}" for ending in ("", "Fast", "Pil"))
    )
    default_dtype = "bfloat16"
    poor_dtypes = {"float16": "Qwen2-VL overflows in float16 (huggingface/transformers#33294); use bf16 or fp32"}

    @classmethod
    def lvlm_class(cls) -> type:
        return Qwen2VLForConditionalGeneration

    @classmethod
    def image_config(cls, base_config: dict, processor_config: dict | None, size: int | None) -> ImageConfig:
        sizes = {"patch_size": cls.usual_patches["patch_size"], "spatial_merge_size": cls.usual_patches["merge_size"]}
        vision, where = base_config["vision_config"], "config.json: vision_config."
        _check_patches(vision, processor_config or {}, cls.usual_patches)
        unit = math.prod(positive(vision, name, where, default) for name, default in sizes.items())
        size = size or 16 * unit  # 256 visual tokens
        if size % unit:
            raise ValueError(f"image size is {size} pixels, expected a multiple of {unit} (patch size x spatial merge)")
        return ImageConfig.of_processor(processor_config, size, "squash")

    @classmethod
    def pin_image_size(cls, processor: typing.Any, image_size: int, num_visual_tokens: int) -> None:
        # The processor rounds the sides to multiples of the merged patch: up below the lower bound, down above the
        # upper one. Bounds one pixel off the size lead to it from both sides, however the floats round.
        processor.image_processor.size = {"shortest_edge": (image_size - 1) ** 2, "longest_edge": (image_size + 1) ** 2}

    def check_parts(self, image_size: int) -> None:
        vision, text = self.lvlm.config.vision_config, self.lvlm.config.get_text_config()
        if self.vision_width % vision.num_heads or text.hidden_size % text.num_attention_heads:
            raise ValueError(
                f"the widths {self.vision_width} and {text.hidden_size} can't be divided among {vision.num_heads} and "
                f"{text.num_attention_heads} heads"
            )
        if (image_size // vision.patch_size) ** 2 > known.MAX_PATCHES:
            raise ValueError(f"an image of {image_size} pixels makes more than {known.MAX_PATCHES} patches")
        sections = (text.rope_parameters or {}).get("mrope_section") or []
        if 2 * sum(sections) != self.head_width:
            raise ValueError(
                f"mrope_section is {sections}, expected three numbers that add up to half a head's width, "
                f"{self.head_width}"
            )

    @property
    def vision_width(self) -> int:
        """Width of the vision tower's blocks, before the patches are merged."""
        return self.lvlm.config.vision_config.embed_dim

    @property
    def head_width(self) -> int:
        """Width of one attention head of the LLM."""
        text = self.lvlm.config.get_text_config()
        return text.hidden_size // text.num_attention_heads

    @property
    def vision_tower(self) -> nn.Module:
        return self.lvlm.model.visual

    @property
    def vision_blocks(self) -> nn.ModuleList:
        return self.vision_tower.blocks

    def num_visual_tokens(self, image_size: int) -> int:
        return self._merged_side(image_size) ** 2

    def visual_tokens(self, images: torch.Tensor) -> torch.Tensor:
        merged = self.tower_output(images).pooler_output
        return merged.view(images.shape[0], -1, merged.shape[-1])

    def tower_output(self, images: torch.Tensor) -> typing.Any:
        """Return all that transformers' vision tower yields for `(B, 3, H, W)`; `pooler_output` is `(B * N, D)`.

        Raises:
            ValueError: torch.export is recording.
        """
        if is_exporting():
            raise ValueError(
                f"torch.export can't record {self.family_name}'s image tower, because transformers reads the lengths "
                "of its packed images at run time. Export the text tower, and run the model itself for images"
            )
        side = images.shape[-1] // self.lvlm.config.vision_config.patch_size
        grid = torch.tensor([[1, side, side]] * images.shape[0], device=images.device)
        return self.lvlm.model.visual(self.patches(images), grid_thw=grid, return_dict=True)

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Cut `(B, 3, H, W)` into the rows the vision tower takes, `(B * gh * gw, 3 * T * P * P)`.

        Values and order are those of transformers' Qwen2VLImageProcessor: patches grouped in merge blocks, the frame
        repeated over the temporal patch.
        """
        vision = self.lvlm.config.vision_config
        patch, merge = vision.patch_size, vision.spatial_merge_size
        batch_size, channels, height, width = images.shape
        blocks = (height // patch // merge, merge, patch, width // patch // merge, merge, patch)
        x = images.reshape(batch_size, channels, *blocks)  # (B, C, bh, m, p, bw, m, p)
        x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, bh, bw, m, m, C, p, p)
        x = x.unsqueeze(6).expand(*x.shape[:6], vision.temporal_patch_size, patch, patch)
        return x.reshape(-1, channels * vision.temporal_patch_size * patch * patch)

    def position_ids(self, length: int, visual_start: int | None, image_size: int) -> torch.Tensor:
        positions = torch.arange(length, device=self.device).expand(3, 1, -1)  # temporal, height, width
        if visual_start is None:
            return positions
        side = self._merged_side(image_size)
        end = visual_start + side * side
        grid = torch.arange(side, device=self.device)
        positions = positions.clone()
        positions[0, 0, visual_start:end] = visual_start
        positions[1, 0, visual_start:end] = visual_start + grid.repeat_interleave(side)
        positions[2, 0, visual_start:end] = visual_start + grid.repeat(side)
        positions[:, :, end:] -= side * side - side  # text continues after the larger side of the grid
        return positions

    def _merged_side(self, image_size: int) -> int:
        vision = self.lvlm.config.vision_config
        return image_size // (vision.patch_size * vision.spatial_merge_size)


def check_tower_widths(vision: typing.Any, hidden_dim: int) -> None:
    """Check what the towers of Qwen2.5-VL and Qwen3-VL have in common.

    Args:
        vision: transformers' config of the tower.
        hidden_dim: width of the LLM.

    Raises:
        ValueError: heads that 2-D rotary positions can't turn, or visual tokens of another width than the LLM's.
    """
    head_width = vision.hidden_size // vision.num_heads
    if head_width % 4:
        raise ValueError(
            f"a head of the vision tower is {head_width} wide, expected a multiple of 4 (2-D rotary positions)"
        )
    if vision.out_hidden_size != hidden_dim:
        raise ValueError(
            f"the vision tower's out_hidden_size is {vision.out_hidden_size}, expected {hidden_dim}, as the LLM"
        )


def _check_patches(vision: dict, processor: dict, usual: dict[str, int]) -> None:
    """Refuse an image processor whose patches differ from the vision tower's."""
    for key, default in usual.items():
        name = "spatial_merge_size" if key == "merge_size" else key
        found, expected = processor.get(key) or default, vision.get(name, default)
        if found != expected:
            raise ValueError(
                f"the image processor's {key} is {found}, config.json's {name} {expected}: the two files don't belong "
                "together; get the base's files again"
            )
