"""LLaVA-1.5: CLIP vision tower, two-layer projector, Llama."""

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.recording import is_exporting
from vladva_clip.storage.config import ImageConfig, positive
from vladva_clip.storage.fields import FLAG, Fields, Part, either, list_of, one_of, whole
from vladva_clip.storage.prompt_config import VisualSpan

_VISION_TOWER: Fields = {
    **known.VISION_TOWER,
    "model_type": one_of("clip_vision_model"),
    "projection_dim": known.WIDTH,
    "initializer_range": known.SPREAD,
    "initializer_factor": known.SPREAD,
}
_LAYER = whole(-known.MAX_LAYERS, known.MAX_LAYERS)


class LlavaBackbone(Backbone):
    """transformers' `LlavaForConditionalGeneration` behind the contract."""

    family = "llava"
    visual_span = VisualSpan("<image>")
    starts_with_bos = True
    bos_token = "<s>"
    image_template = "USER: {prompt} {visual} ASSISTANT:"
    text_template = "USER: {prompt} {caption} ASSISTANT:"
    second_turn = "</s>USER: Describe the image in detail. ASSISTANT: {caption}"
    chat_template = "USER: {visual}\n{prompt} ASSISTANT:"
    eos_token = "</s>"
    control_tokens = ("<s>", "</s>", "<image>")
    tokenizer_classes = ("LlamaTokenizer", "LlamaTokenizerFast")
    config_fields = {
        "model_type": one_of("llava"),
        "text_config": Part(known.LLAMA, optional=True),
        "vision_config": Part(_VISION_TOWER),
        "image_token_index": known.TOKEN_ID,
        "image_token_id": known.TOKEN_ID,
        "image_seq_length": whole(1, known.MAX_POSITIONS),
        "projector_hidden_act": known.ACTIVATION,
        "multimodal_projector_bias": FLAG,
        "vision_feature_select_strategy": one_of("default", "full"),
        "vision_feature_layer": either(_LAYER, list_of(_LAYER, known.MAX_LAYERS)),
        "tie_word_embeddings": FLAG,
        **known.SPECIAL_IDS,
    }
    processor_fields = known.processor(
        ("LlavaProcessor",),
        tuple(f"{kind}ImageProcessor{ending}" for kind in ("CLIP", "Llava") for ending in ("", "Fast", "Pil")),
    )
    default_dtype = "bfloat16"

    @classmethod
    def lvlm_class(cls) -> type:
        return LlavaForConditionalGeneration

    @classmethod
    def image_config(cls, base_config: dict, processor_config: dict | None, size: int | None) -> ImageConfig:
        fixed = fixed_side(base_config, processor_config, size)
        return ImageConfig.of_processor(processor_config, fixed, _resize_mode(processor_config or {}))

    def check_parts(self, image_size: int) -> None:
        depth, stated = self.lvlm.config.vision_config.num_hidden_layers, self.lvlm.config.vision_feature_layer
        layers = [stated] if isinstance(stated, int) else stated
        if not layers or not all(-depth - 1 <= layer <= depth for layer in layers):
            raise ValueError(f"vision_feature_layer is {stated}, expected layers of the {depth} that the tower has")

    @property
    def vision_tower(self) -> nn.Module:
        return self.lvlm.model.vision_tower

    @property
    def vision_blocks(self) -> nn.ModuleList:
        tower = self.vision_tower
        layers = getattr(tower, "vision_model", tower).encoder.layers
        last = self.lvlm.config.vision_feature_layer
        last = last if isinstance(last, int) else max(layer % (len(layers) + 1) for layer in last)
        return layers[: last % (len(layers) + 1)]  # hidden_states[0] is the embedding, so layer n's output is [n]

    def num_visual_tokens(self, image_size: int) -> int:
        vision = self.lvlm.config.vision_config
        with_cls = self.lvlm.config.vision_feature_select_strategy == "full"
        return (image_size // vision.patch_size) ** 2 + with_cls

    def visual_tokens(self, images: torch.Tensor) -> torch.Tensor:
        if is_exporting():  # transformers' function splits the batch, which would fix the number of images
            return self.projected(images)
        return torch.stack(list(self.lvlm.model.get_image_features(images, return_dict=True).pooler_output))

    def projected(self, images: torch.Tensor) -> torch.Tensor:
        """Run tower and projector on pictures of the tower's size: `(M, 3, H, W)` -> `(M, P, D)`."""
        config = self.lvlm.config
        layers, first = config.vision_feature_layer, int(config.vision_feature_select_strategy == "default")
        # transformers before 5.24 takes the layers' numbers for True, and holds the states of all
        states = self.vision_tower(images, output_hidden_states=layers, return_dict=True).hidden_states
        chosen = [states[layer][:, first:] for layer in ([layers] if isinstance(layers, int) else layers)]
        return self.lvlm.model.multi_modal_projector(torch.cat(chosen, dim=-1))


def fixed_side(base_config: dict, processor_config: dict | None, size: int | None) -> int:
    """Return the pixels that a vision tower of one size takes.

    Args:
        base_config, processor_config, size: as for `Backbone.image_config`.

    Raises:
        ValueError: another size was asked for, or the image processor makes one.
    """
    fixed = positive(base_config["vision_config"], "image_size", "config.json: vision_config.")
    if size not in (None, fixed):
        raise ValueError(f"image size is {size} pixels; this base's vision tower takes {fixed} only")
    for key in ("size", "crop_size"):
        check_sides((processor_config or {}).get(key), key, fixed)
    return fixed


def check_sides(stated: int | dict[str, int] | None, key: str, fixed: int) -> None:
    """Refuse an image processor whose pictures don't have the tower's size.

    Args:
        stated: the processor's value.
        key: of the value.
        fixed: pixels that the tower takes.

    Raises:
        ValueError: both numbers.
    """
    sides = stated.values() if isinstance(stated, dict) else () if stated is None else (stated,)
    if any(side != fixed for side in sides):
        raise ValueError(
            f"the image processor's {key} is {stated!r}, but this base's vision tower takes {fixed} pixels only: the "
            "two files don't belong together; get the base's files again"
        )


def _resize_mode(processor: dict) -> str:
    """Return "shortest" (resize the shorter side and crop the center) or "squash" (resize both, ignoring the ratio)."""
    size, crops = processor.get("size"), processor.get("do_center_crop")
    squashes = isinstance(size, dict) and "shortest_edge" not in size
    if crops is False and isinstance(size, dict) and not squashes:
        raise ValueError(
            f"the image processor resizes the shorter side to {size} without cropping, so its pictures are not square; "
            "get the base's preprocessor_config.json again"
        )
    return "squash" if squashes or crops is False else "shortest"
