"""Drawn images and captions for tests, and a data set that worker processes can load."""

import random

import numpy as np
import torch
from PIL import Image, ImageDraw

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "yellow": (220, 200, 40)}
CAPTIONS = [
    "a red circle",
    "the dog on the left of the cat",
    "a small blue square above a large green circle, right of the red square",
    "dog",
    "a large green circle below a small blue square",
]


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A few flat rectangles in few colours: RGB, no gradients, so that a palette holds it without loss."""
    draw_from = random.Random(seed)
    image = Image.new("RGB", size, draw_from.choice(list(COLOURS.values())))
    pen = ImageDraw.Draw(image)
    for _ in range(3):
        x, y = draw_from.randrange(size[0] // 2), draw_from.randrange(size[1] // 2)
        pen.rectangle((x, y, x + size[0] // 3, y + size[1] // 3), fill=draw_from.choice(list(COLOURS.values())))
    return image


def image_batch(model, count: int, seed: int = 0) -> torch.Tensor:
    """`(count, 3, H, W)` noise of the model's image size."""
    return torch.randn(count, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(seed))


def noise_picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """An RGB image of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


class Pairs(torch.utils.data.Dataset):
    """(preprocessed image, tokens of its caption), made in whichever process asks."""

    def __init__(self, preprocess, tokenizer, count: int = 6) -> None:
        self.preprocess, self.tokenizer, self.count = preprocess, tokenizer, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.preprocess(noise_picture(index)), self.tokenizer([CAPTIONS[index % len(CAPTIONS)]])[0]
