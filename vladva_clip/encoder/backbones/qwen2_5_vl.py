"""Qwen2.5-VL: Qwen2-VL's rows and positions; most layers of its vision tower see one window of the image."""

from transformers import Qwen2_5_VLForConditionalGeneration

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.qwen2_vl import LLM_FIELDS, Qwen2VLBackbone, check_tower_widths
from vladva_clip.storage.fields import Fields, Part, list_of, one_of, whole

_VISION_TOWER: Fields = {
    "model_type": one_of("qwen2_5_vl", "qwen2_5_vl_vision"),
    **{name: known.WIDTH for name in ("hidden_size", "out_hidden_size")},
    "intermediate_size": known.FEED_FORWARD,
    "depth": known.LAYERS,
    "num_heads": known.HEADS,
    "in_channels": one_of(3),
    "patch_size": known.PATCH,
    **{name: whole(1, 8) for name in ("spatial_merge_size", "temporal_patch_size")},
    "tokens_per_second": whole(1, 1000),  # of videos
    "window_size": known.SIDE,  # pixels
    "fullatt_block_indexes": list_of(whole(0, known.MAX_LAYERS - 1), known.MAX_LAYERS),
    # transformers 5.24 reads it; earlier releases use this value
    "rope_parameters": Part(
        {"rope_type": one_of("axial", "default"), "rope_theta": one_of(10000.0, 10000)}, optional=True
    ),
    "hidden_act": known.ACTIVATION,
    "initializer_range": known.SPREAD,
}


class Qwen25VLBackbone(Qwen2VLBackbone):
    """transformers' `Qwen2_5_VLForConditionalGeneration` behind the contract, at one fixed square resolution.

    Any multiple of the merged patch is allowed: windows at the right and lower edge are smaller where the image is no
    multiple of `window_size`, as in transformers.
    """

    family = "qwen2_5_vl"
    family_name = "Qwen2.5-VL"
    config_fields = {
        **LLM_FIELDS,  # the published files are flat
        "model_type": one_of("qwen2_5_vl"),
        "text_config": Part({**LLM_FIELDS, "model_type": one_of("qwen2_5_vl_text", "qwen2_5_vl")}, optional=True),
        "vision_config": Part(_VISION_TOWER),
        **{f"{name}_token_id": known.TOKEN_ID for name in ("image", "video", "vision_start", "vision_end")},
    }
    processor_fields = known.processor(
        ("Qwen2_5_VLProcessor",), tuple(f"Qwen2VLImageProcessor{ending}" for ending in ("", "Fast", "Pil"))
    )
    poor_dtypes = {
        "float16": "Qwen2-VL, whose LLM is built like Qwen2.5-VL's, overflows in float16 "
        "(huggingface/transformers#33294); use bf16 or fp32"
    }

    @classmethod
    def lvlm_class(cls) -> type:
        return Qwen2_5_VLForConditionalGeneration

    def check_parts(self, image_size: int) -> None:
        super().check_parts(image_size)
        vision = self.lvlm.config.vision_config
        check_tower_widths(vision, self.hidden_dim)
        unit = vision.patch_size * vision.spatial_merge_size
        if vision.window_size < unit:
            raise ValueError(
                f"window_size is {vision.window_size} pixels, expected at least {unit} (patch size x spatial merge)"
            )
        if late := [index for index in vision.fullatt_block_indexes if index >= vision.depth]:
            raise ValueError(
                f"fullatt_block_indexes names block {late[0]}, but the vision tower has {vision.depth} (from 0)"
            )

    @property
    def vision_width(self) -> int:
        return self.lvlm.config.vision_config.hidden_size
