"""PIL image -> float tensor (3, H, W) of one fixed size per model, as a torchvision Compose."""

import dataclasses
import typing

import numpy as np
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import CenterCrop, Compose
from torchvision.transforms import functional as TF

from vladva_clip.config import ImageConfig
from vladva_clip.pictures import require_harmless


class ToRGB:
    """Any PIL mode -> RGB: 16-bit greys are scaled to 8 bits, alpha is dropped (as the bases' own processors do).

    It stands first, because resampling a palette would mix indices, not colours. `size` is there since
    open_clip_train's synthetic data reads `transforms[0].size`.
    """

    def __init__(self, size: int) -> None:
        self.size = (size, size)

    def __call__(self, image: Image.Image) -> Image.Image:
        if not isinstance(image, Image.Image):
            raise ValueError(f"preprocess got {type(image).__name__}, expected a PIL image: PIL.Image.open(path)")
        require_harmless(image)
        # PIL clips at 255; older releases open a 16-bit file as 32-bit "I"
        if image.mode.startswith("I;16") or (image.mode == "I" and image.getextrema()[1] > 255):
            image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
        if image.mode == "La":  # premultiplied grey, which PIL converts to LA only
            image = image.convert("LA")
        return image.convert("RGB")

    def __repr__(self) -> str:
        return "ToRGB()"


class FloorCenterCrop(CenterCrop):
    """torchvision's CenterCrop with the odd pixel cut where transformers' image processors cut it.

    torchvision rounds the offset half to even, transformers rounds it down: one pixel, and cosines of 0.95.
    """

    def forward(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return TF.crop(image, top, left, height, width)


def image_transform(
    config: ImageConfig, is_train: bool = False, aug_cfg: dict[str, typing.Any] | None = None
) -> Compose:
    """Build the transform of a model.

    Args:
        config: the geometry and normalisation.
        is_train: open_clip's random resized crop instead of the model's own resize.
        aug_cfg: open_clip's AugmentationCfg as a dict; training only.

    Returns:
        A picklable Compose that maps a PIL image of any size and mode to float32 `(3, size, size)`.
    """
    steps = image_transform_v2(PreprocessCfg(**preprocess_cfg(config)), is_train, aug_cfg).transforms
    steps = [FloorCenterCrop(step.size) if type(step) is CenterCrop else step for step in steps]
    return Compose([ToRGB(config.size), *steps])


def preprocess_cfg(config: ImageConfig) -> dict[str, typing.Any]:
    """Return open_clip's preprocess_cfg: keys size, mode, mean, std, interpolation, resize_mode, fill_color."""
    return {"mode": "RGB", **dataclasses.asdict(config)}
