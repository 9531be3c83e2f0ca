"""Resizing that computes only the pixels of a thin picture that are kept; other pictures go through torchvision.

To resize the short side of 3000 x 1 pixels to 336, torchvision makes a million columns, of which the crop keeps 336.
Only those are computed here, with Pillow's arithmetic, so the result is bit-equal. Pillow itself can't do that: it
rounds the borders of its `box` to float32, which shifts the pixel grid.
"""

import numpy as np
from open_clip.transform import ResizeKeepRatio
from PIL import Image
from torchvision.transforms import InterpolationMode, Resize
from torchvision.transforms import functional as TF

MOST = 16  # long side / short side: up to this ratio torchvision needs a few MB, and is used
_BITS = 22  # of Pillow's fixed-point weights


class ShortestResize(Resize):
    """The short side becomes `size`; a thin picture that is enlarged gets only its center square computed."""

    def forward(self, image: Image.Image) -> Image.Image:
        short, long = sorted(image.size)
        if short >= self.size or long <= MOST * short:
            return super().forward(image)
        resized = int(self.size * long / short)  # as in torchvision; the offset as in preprocess.FloorCenterCrop
        places = (resized - self.size) // 2 + np.arange(self.size)
        sources, weights = _taps(places, long, resized, self.interpolation)
        begin, end = int(sources.min()), int(sources.max()) + 1
        sources -= begin
        if image.width > image.height:  # the width first, as in Pillow
            strip = np.asarray(image.crop((begin, 0, end, short))).swapaxes(0, 1)
            image = Image.fromarray(np.ascontiguousarray(_weighted(strip, sources, weights).swapaxes(0, 1)))
            return TF.resize(image, [self.size, self.size], self.interpolation)
        strip = TF.resize(image.crop((0, begin, short, end)), [end - begin, self.size], self.interpolation)
        return Image.fromarray(_weighted(np.asarray(strip), sources, weights))


class SquashResize(Resize):
    """Both sides become `size`; a tall thin picture is resized in height first, as in Pillow 13.

    Older releases begin with the width and widen every row; that order rounds differently, by a few of 255 levels.
    """

    def forward(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if image.width < width and image.height > MOST * height:
            image = TF.resize(image, [height, image.width], self.interpolation)
        return super().forward(image)


class LongestResize(ResizeKeepRatio):
    """open_clip's own, except that the short side keeps at least one pixel."""

    @staticmethod
    def get_params(*args, **options) -> list[int]:
        return [max(1, side) for side in ResizeKeepRatio.get_params(*args, **options)]


def _taps(
    places: np.ndarray, length: int, resized: int, interpolation: InterpolationMode
) -> tuple[np.ndarray, np.ndarray]:
    """Return Pillow's source pixels and weights for some pixels of an enlarged side (`precompute_coeffs`, Resample.c).

    Args:
        places: `(N,)` the positions of the pixels to compute, in the enlarged side.
        length, resized: the side in pixels, before and after.
        interpolation: bicubic, bilinear or lanczos.

    Returns:
        `(N, K)` positions in the original side, and their weights as multiples of 2**-22; both int64.
    """
    support, kernel = _KERNELS[interpolation]
    centers = (places + 0.5) * (length / resized)
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centers + support + 0.5).astype(np.int64), length)
    sources = first[:, None] + np.arange(2 * support + 1)  # the most that the kernel weighs when it enlarges
    weights = np.where(sources < end[:, None], kernel(np.abs(sources - centers[:, None] + 0.5)), 0.0)
    weights = weights / weights.sum(axis=1, keepdims=True) * (1 << _BITS)
    return np.minimum(sources, length - 1), (weights + np.copysign(0.5, weights)).astype(np.int64)


def _weighted(pixels: np.ndarray, sources: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`(L, M, 3)` bytes -> `(N, M, 3)` bytes."""
    sums = sum(pixels[sources[:, tap]] * weights[:, tap, None, None] for tap in range(sources.shape[1]))
    return ((sums + (1 << _BITS - 1)) >> _BITS).clip(0, 255).astype(np.uint8)


def _cubic(x: np.ndarray) -> np.ndarray:
    near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - x, 0.0)


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_KERNELS = {  # half the pixels that a kernel weighs, and its weight at a distance
    InterpolationMode.LANCZOS: (3, _lanczos),
    InterpolationMode.BICUBIC: (2, _cubic),
    InterpolationMode.BILINEAR: (1, _linear),
}
