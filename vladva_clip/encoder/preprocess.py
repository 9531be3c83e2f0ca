"""PIL image -> float tensor (3, H, W), of a fixed size for each model, as a torchvision Compose."""

import dataclasses
import typing

from open_clip.transform import PreprocessCfg, ResizeKeepRatio, image_transform_v2
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from torchvision.transforms import functional as TF

from vladva_clip.pictures.colors import to_rgb
from vladva_clip.pictures.files import require_harmless
from vladva_clip.pictures.thin import LongestResize, ShortestResize, SquashResize
from vladva_clip.storage.config import ImageConfig


class ToRGB:
    """A PIL image of any mode -> RGB by `colors.to_rgb`; EXIF is not applied, as in open_clip and transformers.

    It comes first because resampling a palette would mix indices instead of colors. It has a `size` because
    open_clip_train's synthetic data reads `transforms[0].size`.
    """

    def __init__(self, size: int) -> None:
        self.size = (size, size)

    def __call__(self, image: Image.Image) -> Image.Image:
        if not isinstance(image, Image.Image):
            raise ValueError(
                f"preprocess got {type(image).__name__}, expected a PIL image: PIL.Image.open(path), or "
                'PIL.Image.fromarray(array) with "uint8" values from 0 to 255'
            )
        require_harmless(image)
        return to_rgb(image)

    def __repr__(self) -> str:
        return "ToRGB()"


class FloorCenterCrop(CenterCrop):
    """torchvision's CenterCrop, but with an odd pixel cut off as in transformers' image processors.

    torchvision rounds the offset half to even, transformers rounds it down. That one pixel costs cosines of 0.95.
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
        config: the geometry and normalization.
        is_train: use open_clip's random resized crop instead of the model's own resize.
        aug_cfg: open_clip's AugmentationCfg as a dict; training only.

    Returns:
        A picklable Compose that maps a PIL image of any size and mode to float32 `(3, size, size)`.
    """
    steps = _open_clip_steps(config, is_train, aug_cfg)
    return Compose([ToRGB(config.size), *map(_ours, steps)])


def _open_clip_steps(config: ImageConfig, is_train: bool, aug_cfg: dict[str, typing.Any] | None) -> list[typing.Any]:
    """Return the steps that open_clip makes; it knows two interpolations, the third is put into its bicubic steps."""
    cfg = PreprocessCfg(**preprocess_cfg(config))
    if config.interpolation != "lanczos":
        return image_transform_v2(cfg, is_train, aug_cfg).transforms
    steps = image_transform_v2(dataclasses.replace(cfg, interpolation="bicubic"), is_train, aug_cfg).transforms
    for step in steps:
        if hasattr(step, "interpolation"):
            step.interpolation = InterpolationMode.LANCZOS
    return steps


def _ours(step: typing.Any) -> typing.Any:
    """Return our replacement for one of open_clip's steps, or the step itself."""
    if type(step) is CenterCrop:
        return FloorCenterCrop(step.size)
    if type(step) is ResizeKeepRatio:
        return LongestResize(step.size, step.longest, step.interpolation)
    if type(step) is Resize:
        kind = ShortestResize if isinstance(step.size, int) else SquashResize
        return kind(step.size, step.interpolation)
    return step


def preprocess_cfg(config: ImageConfig) -> dict[str, typing.Any]:
    """Return open_clip's preprocess_cfg: keys size, mode, mean, std, interpolation, resize_mode, fill_color."""
    return {"mode": "RGB", **dataclasses.asdict(config)}
