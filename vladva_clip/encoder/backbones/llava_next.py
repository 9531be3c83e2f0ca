"""LLaVA-NeXT with Llama 3: LLaVA's tower and projector on the whole image and on tiles of it ("any resolution")."""

import typing

import torch
from torch.nn import functional as F
from transformers import LlavaNextForConditionalGeneration

from vladva_clip.encoder.backbones import config_fields as known
from vladva_clip.encoder.backbones.llava import LlavaBackbone, check_sides
from vladva_clip.storage.config import ImageConfig, positive
from vladva_clip.storage.fields import FLAG, Check, list_of, one_of

_GRID = Check("a height and a width in pixels", lambda sides: isinstance(sides, list) and _is_grid(sides))
_GRIDS = list_of(_GRID, 64).or_null()
_USUAL_GRIDS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]  # transformers' own
_SYSTEM = (  # of the published chat
    "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. You are able to "
    "understand the visual content that the user provides, and assist the user with a variety of tasks using natural "
    "language.<|eot_id|>"
)
_USER, _ANSWER = "<|start_header_id|>user<|end_header_id|>\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"


class LlavaNextBackbone(LlavaBackbone):
    """transformers' `LlavaNextForConditionalGeneration` behind the contract, for square images and Llama 3.

    An image of the tower's own size (336 pixels as published) is seen whole, once. A larger square that the base's
    grids name (672) is seen as the authors see it: scaled down to the tower's size, then cut into tiles of that size,
    with the vector `image_newline` behind each row of the tiles' tokens.
    """

    family = "llava_next"
    bos_token = "<|begin_of_text|>"
    image_template = f"{_USER}{{prompt}} {{visual}}<|eot_id|>{_ANSWER}"
    text_template = f"{_USER}{{prompt}} {{caption}}<|eot_id|>{_ANSWER}"
    second_turn = f"<|eot_id|>{_USER}Describe the image in detail.<|eot_id|>{_ANSWER}{{caption}}"
    chat_template = f"{_SYSTEM}{_USER}{{visual}}\n{{prompt}}<|eot_id|>{_ANSWER}"
    eos_token = "<|eot_id|>"
    control_tokens = (
        *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<image>",
    )
    tokenizer_classes = ()  # Llama's own class would rebuild it as SentencePiece
    config_fields = {
        **LlavaBackbone.config_fields,
        "model_type": one_of("llava_next"),
        "vision_feature_select_strategy": one_of("default"),  # tiles have no place for a class token
        "image_grid_pinpoints": _GRIDS,
    }
    processor_fields = {
        **known.processor(
            ("LlavaNextProcessor",), tuple(f"LlavaNextImageProcessor{end}" for end in ("", "Fast", "Pil"))
        ),
        "resample": one_of(3),  # bicubic, as `visual_tokens` scales
        "do_pad": FLAG.or_null(),  # with whole crops that are missing, which squares never are
        "image_grid_pinpoints": _GRIDS,
    }

    @classmethod
    def lvlm_class(cls) -> type:
        return LlavaNextForConditionalGeneration

    @classmethod
    def image_config(cls, base_config: dict, processor_config: dict | None, size: int | None) -> ImageConfig:
        side = positive(base_config["vision_config"], "image_size", "config.json: vision_config.")
        for key in ("size", "crop_size"):
            check_sides((processor_config or {}).get(key), key, side)
        squares = _squares(base_config, side)
        _check_grids(processor_config or {}, squares, side)
        size = size or max(squares)
        if size not in squares:
            raise ValueError(
                f"image size is {size} pixels, expected {' or '.join(map(str, sorted(squares)))}: {side} for the whole "
                "image alone, more for the whole image and tiles of it (image_grid_pinpoints in config.json)"
            )
        return ImageConfig.of_processor(processor_config, size, "squash")

    def pin_image_size(self, processor: typing.Any, image_size: int) -> None:
        if self.num_crops(image_size) == 1:
            raise ValueError(
                f"at {image_size} pixels an image is seen whole, without tiles, but transformers' own processor always "
                "cuts tiles as well, so the export would give other vectors. Export the model at its larger image "
                "size, or use this one through vladva_clip"
            )
        processor.image_processor.image_grid_pinpoints = [[image_size, image_size]]
        # older files leave these to the model, and transformers counts slots by them
        processor.patch_size, processor.num_additional_image_tokens = self._patch, 1  # the class token
        processor.vision_feature_select_strategy = "default"

    def pinned_config(self, image_size: int) -> dict[str, typing.Any]:
        return {"image_grid_pinpoints": [[image_size, image_size]]}

    @property
    def _side(self) -> int:
        """Pixels of a crop, which is what the tower takes."""
        return self.lvlm.config.vision_config.image_size

    @property
    def _patch(self) -> int:
        return self.lvlm.config.vision_config.patch_size

    def num_patches(self, image_size: int) -> int:
        return super().num_patches(self._side)

    def num_crops(self, image_size: int) -> int:
        tiles = (image_size // self._side) ** 2
        return 1 + tiles if tiles > 1 else 1

    def num_visual_tokens(self, image_size: int) -> int:
        lines = image_size // self._patch if image_size > self._side else 0
        return self.num_crops(image_size) * self.num_patches(image_size) + lines

    def visual_tokens(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] == self._side:
            return self.projected(images)
        crops = self.num_crops(images.shape[-1])
        tokens = self.projected(_crops(images, self._side)).unflatten(0, (images.shape[0], crops))
        return torch.cat([tokens[:, 0], self._lines(tokens[:, 1:])], dim=1)

    def _lines(self, tokens: torch.Tensor) -> torch.Tensor:
        """Join tiles' tokens `(B, n * n, P * P, D)` to lines across the image, each with a newline behind it."""
        across, down = int(tokens.shape[1] ** 0.5), int(tokens.shape[2] ** 0.5)
        grid = tokens.unflatten(2, (down, down)).unflatten(1, (across, across))  # (B, n, n, P, P, D)
        lines = grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, n * P, n * P, D)
        newline = self.lvlm.model.image_newline.to(lines.dtype).expand(*lines.shape[:2], 1, -1)
        return torch.cat([lines, newline], dim=2).flatten(1, 2)


def _is_grid(sides: list) -> bool:
    return len(sides) == 2 and all(map(known.SIDE.holds, sides))


def _squares(config: dict, side: int) -> set[int]:
    """The square sizes that the grids of a config allow, and the tower's own size."""
    grids = config.get("image_grid_pinpoints") or _USUAL_GRIDS
    return {side, *(height for height, width in grids if height == width and height % side == 0)}


def _check_grids(processor: dict, squares: set[int], side: int) -> None:
    """Refuse an image processor that cuts square images into other tiles than the model expects."""
    if "image_grid_pinpoints" in processor and _squares(processor, side) != squares:
        raise ValueError(
            f"the image processor's image_grid_pinpoints is {processor['image_grid_pinpoints']}, whose squares are not "
            f"those of config.json ({sorted(squares)}): the two files don't belong together; get the base's files again"
        )


def _crops(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return each image scaled to `side` pixels, then its tiles row by row: `(B * (1 + n * n), 3, side, side)`."""
    exact = images.float() if images.dtype.itemsize < 4 else images
    whole = F.interpolate(exact, size=(side, side), mode="bicubic", antialias=True).to(images.dtype)
    cut = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, 3, n, side, n, side)
    tiles = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return torch.cat([whole[:, None], tiles], dim=1).flatten(0, 1)
