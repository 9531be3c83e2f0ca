"""Scenes as the vision tower sees them: drawn, resized and normalized as the model's preprocess does."""

import numpy as np
import torch
from PIL import Image

from vladva_clip.scenes import Scene
from vladva_training.tiny.model import IMAGE_SIZE

_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), dtype=np.float32)
_STD = np.array((0.26862954, 0.26130258, 0.27577711), dtype=np.float32)


def draw_pixels(drawn: Scene) -> torch.Tensor:
    """A scene drawn, squashed to a square if its canvas is not one, and normalized: (3, H, W)."""
    image = drawn.draw(IMAGE_SIZE)
    if image.size != (IMAGE_SIZE, IMAGE_SIZE):
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.float32) / 255
    return torch.from_numpy(((pixels - _MEAN) / _STD).transpose(2, 0, 1).copy())
