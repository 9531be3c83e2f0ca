"""Thin pictures: the same pixels as torchvision's, without the millions that the crop throws away."""

import resource
import time

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode

from vladva_clip.encoder.preprocess import FloorCenterCrop, image_transform, preprocess_cfg
from vladva_clip.pictures import thin
from vladva_clip.storage.config import CLIP_MEAN, CLIP_STD, ImageConfig

MODES, INTERPOLATIONS = ("shortest", "longest", "squash"), ("bicubic", "bilinear", "lanczos")


def config(mode: str, interpolation: str = "bicubic", size: int = 336) -> ImageConfig:
    return ImageConfig(size, CLIP_MEAN, CLIP_STD, interpolation, mode)


def common(config: ImageConfig) -> Compose:
    """open_clip's own steps, with the crop floored as ours, and with Lanczos, which it doesn't know."""
    known = config.interpolation if config.interpolation != "lanczos" else "bicubic"
    steps = image_transform_v2(PreprocessCfg(**preprocess_cfg(config) | {"interpolation": known}), False).transforms
    for step in (one for one in steps if hasattr(one, "interpolation")):
        step.interpolation = InterpolationMode(config.interpolation)
    return Compose([FloorCenterCrop(step.size) if type(step) is CenterCrop else step for step in steps])


def noise(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [37, 64, 224])
def test_the_cut_has_the_same_bits(monkeypatch, size, interpolation):
    """Of any sides: the cut way is taken from a ratio of 1.5 on here, as the common way is slow for thinner ones."""
    monkeypatch.setattr(thin, "MOST", 1.5)
    generator = np.random.default_rng(size)
    ours, reference = (make(config("shortest", interpolation, size)) for make in (image_transform, common))
    for _ in range(60):
        short = int(generator.integers(1, size))
        sides = [short, int(short * generator.uniform(1.5, 12)) + 1]
        generator.shuffle(sides)
        image = noise(generator, *sides)
        assert torch.equal(ours(image), reference(image)), image.size


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        *[(mode, size) for mode in MODES for size in ((5, 333), (400, 20), (20, 401))],
        *[(mode, size) for mode in ("shortest", "squash") for size in ((700, 1), (1, 700), (701, 3))],
    ],
)  # the second ones are too thin for open_clip's "longest", which leaves no pixel of the short side
def test_the_same_bits_as_the_common_way(mode, size):
    image = noise(np.random.default_rng(0), *size)
    assert torch.equal(image_transform(config(mode, size=64))(image), common(config(mode, size=64))(image))


@pytest.mark.parametrize("width", [1, 2, 30])
def test_a_squash_that_takes_the_height_first(width):
    """As Pillow 13 does; older releases widen every row first."""
    image = noise(np.random.default_rng(0), width, 64 * thin.MOST + 500)
    lower = image.resize((width, 64), Image.Resampling.BICUBIC)
    transform = image_transform(config("squash", size=64))
    assert torch.equal(transform(image), transform(lower))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_train", [False, True])
def test_memory_and_time(mode, interpolation, is_train):
    """By the common way each of the longer ones takes 29 to 500 GB in "shortest"."""
    transform = image_transform(config(mode, interpolation), is_train)
    transform(Image.new("RGB", (9, 9)))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for size in ((3000, 1), (1, 3000), (65_000, 1), (1, 65_000), (7, 65_000), (1_000_000, 1), (1, 1_000_000)):
        pixels = transform(Image.new("RGB", size, "red"))
        assert pixels.shape == (3, 336, 336)
        if mode != "longest" or is_train:
            assert torch.equal(pixels, pixels[:, :1, :1].expand(3, 336, 336))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000  # KiB; 50 MB are the pictures
    assert time.monotonic() - start < 10


def test_usual_pictures_go_the_common_way(monkeypatch):
    def unreachable(*_):
        raise AssertionError("the cut way")

    monkeypatch.setattr(thin, "_taps", unreachable)
    for size in ((640, 480), (480, 640), (1, 1), (16, 1), (1, 16), (3000, 400), (8000, 400)):
        image_transform(config("shortest"))(Image.new("RGB", size))
    with pytest.raises(AssertionError, match="cut way"):
        image_transform(config("shortest"))(Image.new("RGB", (17, 1)))
