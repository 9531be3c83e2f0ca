"""Drawn scenes reach the vision tower as the model's own preprocess would bring them."""

import pytest
import torch

import vladva_clip
from vladva_clip.scenes import crowd, scenes
from vladva_training.tiny.pixels import draw_pixels


@pytest.fixture(scope="module")
def preprocess():
    return vladva_clip.create_model("vladva-tiny")[1]


@pytest.mark.parametrize("style", ["classic", "varied", "unseen"])
def test_pixels_are_those_of_preprocess(preprocess, style):
    drawn = [*scenes("test", 0, 40, style), *(crowd(number, style) for number in range(10))]
    sizes = {one.draw(64).size for one in drawn}
    assert style == "classic" or any(width != height for width, height in sizes)
    for one in drawn:
        torch.testing.assert_close(draw_pixels(one), preprocess(one.draw(64)), atol=1e-6, rtol=1e-5)
