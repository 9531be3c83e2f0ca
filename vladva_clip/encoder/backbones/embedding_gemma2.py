"""EmbeddingGemma 2: an encoder without a head, whose LLM attends both ways and ends in a projection; no audio."""

import typing

import torch
from torch import nn

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.recording import is_exporting
from vladva_clip.storage.config import ImageConfig, positive
from vladva_clip.storage.fields import FLAG, Check, Fields, LeftOut, Part, list_of, one_of, whole
from vladva_clip.storage.prompt_config import PromptConfig, VisualSpan

_LAYER_TYPES = ("sliding_attention", "full_attention")
_OF_A_LAYER: Fields = {"head_dim": known.WIDTH, "num_key_value_heads": known.HEADS}


def _is_by_layer(value: object) -> bool:
    """Whether it is an object of layers' numbers, such as "05", each with what differs in that layer."""
    return isinstance(value, dict) and all(
        key.isdecimal() and len(key) < 4 and isinstance(one, dict) and _is_of_a_layer(one) for key, one in value.items()
    )


def _is_of_a_layer(value: dict) -> bool:
    return all(key in _OF_A_LAYER and _OF_A_LAYER[key].holds(item) for key, item in value.items())


def _rope(kind: str) -> Part:
    return Part({"rope_type": one_of(kind), "rope_theta": known.ROPE["rope_theta"]}, optional=True)


_LLM: Fields = {
    "model_type": one_of("embedding_gemma2_text"),
    **{name: known.WIDTH for name in ("hidden_size", "head_dim", "hidden_size_per_layer_input", "embedding_dim")},
    "intermediate_size": known.FEED_FORWARD,
    "num_hidden_layers": known.LAYERS,
    **{name: known.HEADS for name in ("num_attention_heads", "num_key_value_heads")},
    "vocab_size": known.VOCABULARY,
    **{name: known.POSITIONS for name in ("max_position_embeddings", "sliding_window")},
    "hidden_activation": known.ACTIVATION,
    **{name: known.FRACTION for name in ("rms_norm_eps", "initializer_range", "attention_dropout")},
    "attention_bias": FLAG,
    "layer_types": list_of(one_of(*_LAYER_TYPES), known.MAX_LAYERS),
    "per_layer_config": Check("an object of layers' numbers, with head_dim and num_key_value_heads", _is_by_layer),
    "rope_parameters": Part(dict.fromkeys(_LAYER_TYPES, _rope("default")), optional=True),
    **known.SPECIAL_IDS,
}
_VISION_TOWER: Fields = {
    "model_type": one_of("gemma4_vision"),
    **{name: known.WIDTH for name in ("hidden_size", "head_dim")},
    "intermediate_size": known.FEED_FORWARD,
    "num_hidden_layers": known.LAYERS,
    **{name: known.HEADS for name in ("num_attention_heads", "num_key_value_heads")},
    "hidden_activation": known.ACTIVATION,
    **{name: known.FRACTION for name in ("rms_norm_eps", "initializer_range")},
    "attention_dropout": known.FRACTION.or_null(),
    "attention_bias": FLAG.or_null(),
    "max_position_embeddings": known.POSITIONS,
    "patch_size": known.PATCH,
    "pooling_kernel_size": whole(1, 8),
    "position_embedding_size": whole(1, 1 << 20),
    "rope_parameters": _rope("axial"),
    **{name: one_of(False) for name in ("use_clipped_linears", "standardize")},
}


class EmbeddingGemma2Backbone(Backbone):
    """transformers' `EmbeddingGemma2Model` without its audio tower, at one fixed square resolution.

    Rows are those of its documents; a profile has the prompts of other tasks. The tokenizer's `<bos>` and `<eos>` are
    written out.
    """

    family = "embedding_gemma2"
    visual_span = VisualSpan("<|image|>", "<|image>", "<image|>")
    starts_with_bos = False  # the templates write it
    bos_token = None
    image_template = "<bos>{visual}<eos>"
    text_template = "<bos>title: none | text: {caption}<eos>"
    eos_token = "<eos>"
    control_tokens = (
        *("<pad>", "<bos>", "<eos>", "<|image>", "<|image|>", "<image|>"),
        *("<|audio>", "<|audio|>", "<audio|>", "<|video|>"),
    )
    tokenizer_classes = ("GemmaTokenizer", "GemmaTokenizerFast")
    config_fields = {
        "model_type": one_of("embedding_gemma2"),
        "text_config": Part(_LLM),
        "vision_config": Part(_VISION_TOWER),
        "audio_config": LeftOut(),
        **{f"{name}_token_id": known.TOKEN_ID for name in ("boi", "eoi", "image", "video", "boa", "audio")},
        "eoa_token_index": known.TOKEN_ID,
    }
    processor_fields = {
        **known.processor(("EmbeddingGemma2Processor",), ("Gemma4ImageProcessor", "Gemma4ImageProcessorPil")),
        "do_normalize": one_of(False).or_null(),
    }
    default_dtype = "bfloat16"
    projects = True
    attends_both_ways = True
    tensors_left_out = ("audio_tower.", "embed_audio.")
    refused_dtypes = {"float16": "EmbeddingGemma 2's activations exceed float16 (the model card); use bf16 or fp32"}

    @classmethod
    def lvlm_class(cls) -> type:
        try:
            from transformers import EmbeddingGemma2Model  # late: other families run with earlier releases
        except ImportError as error:
            raise ValueError("EmbeddingGemma 2 needs transformers 5.19 or later; install it") from error
        return EmbeddingGemma2Model

    @classmethod
    def prompt_config(cls) -> PromptConfig:
        return PromptConfig(cls.image_template, cls.text_template, caption_ids="joined", clean="none")

    @classmethod
    def image_config(cls, base_config: dict, processor_config: dict | None, size: int | None) -> ImageConfig:
        vision, where = base_config["vision_config"], "config.json: vision_config."
        patch, pool = positive(vision, "patch_size", where, 16), positive(vision, "pooling_kernel_size", where, 3)
        size = size or 16 * patch * pool  # 256 visual tokens
        if size % (patch * pool):
            raise ValueError(
                f"image size is {size} pixels, expected a multiple of {patch * pool} (patch size x pooling kernel)"
            )
        return ImageConfig(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), resize_mode="squash")  # the tower scales them

    def check_parts(self, image_size: int) -> None:
        vision, text = self.lvlm.config.vision_config, self.lvlm.config.get_text_config()
        side = image_size // vision.patch_size
        if side**2 > known.MAX_PATCHES or side > vision.position_embedding_size:
            raise ValueError(
                f"an image of {image_size} pixels makes {side} x {side} patches, expected at most {known.MAX_PATCHES} "
                f"and sides of at most {vision.position_embedding_size} (position_embedding_size)"
            )
        if vision.head_dim % 4:
            raise ValueError(
                f"a head of the vision tower is {vision.head_dim} wide, expected a multiple of 4 (2-D rotary positions)"
            )
        if len(text.layer_types) != text.num_hidden_layers or text.layer_types[-1] != "full_attention":
            raise ValueError(
                f"layer_types names {len(text.layer_types)} layers that end in {text.layer_types[-1:]}, expected "
                f"{text.num_hidden_layers} that end in full_attention"
            )

    @property
    def trunk_module(self) -> nn.Module:
        return self.lvlm.language_model

    @property
    def vision_tower(self) -> nn.Module:
        return self.lvlm.vision_tower

    @property
    def vision_blocks(self) -> nn.ModuleList:
        return self.vision_tower.encoder.layers

    @property
    def embed_dim(self) -> int:
        return self.lvlm.config.get_text_config().embedding_dim

    @classmethod
    def width_of(cls, base_config: dict) -> int:
        return base_config["text_config"].get("embedding_dim", 768)  # transformers' own default

    def num_visual_tokens(self, image_size: int) -> int:
        vision = self.lvlm.config.vision_config
        return (image_size // (vision.patch_size * vision.pooling_kernel_size)) ** 2

    def visual_tokens(self, images: torch.Tensor) -> torch.Tensor:
        if is_exporting():
            raise ValueError(
                "torch.export can't record EmbeddingGemma 2's image tower, because transformers drops its padding at "
                "run time. Export the text tower, and run the model itself for images"
            )
        patches = self.patches(images)
        positions = self._grid(images.shape[-1]).expand(len(images), -1, -1)
        seen = self.vision_tower(pixel_values=patches, pixel_position_ids=positions).last_hidden_state
        return self.lvlm.embed_vision(inputs_embeds=seen).view(len(images), -1, self.hidden_dim)

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Cut `(B, 3, H, W)` into patches row by row, `(B, N, P * P * 3)`, the colors of a pixel side by side."""
        patch = self.lvlm.config.vision_config.patch_size
        cut = images.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, 3, gh, gw, P, P)
        return cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)

    def _grid(self, image_size: int) -> torch.Tensor:
        """Return the places of the patches as (x, y), `(N, 2)`."""
        sides = torch.arange(image_size // self.lvlm.config.vision_config.patch_size, device=self.device)
        return torch.cartesian_prod(sides, sides).flip(1)

    def trunk(
        self,
        embeddings: torch.Tensor,
        position_ids: torch.Tensor,
        cache: typing.Any = None,
        **trunk_inputs: typing.Any,
    ) -> torch.Tensor:
        if cache is not None:  # transformers would leave it out in silence
            raise ValueError("EmbeddingGemma 2 attends both ways, so it keeps no cache; expected cache=None")
        return super().trunk(embeddings, position_ids, **trunk_inputs)
