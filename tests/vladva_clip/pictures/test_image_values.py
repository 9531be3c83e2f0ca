"""Image tensors that preprocess can't have made are refused on the CPU, and nothing else is disturbed by the look."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from vladva_clip.pictures.image_values import highest, require_normalized
from vladva_clip.storage.config import CLIP_MEAN, CLIP_STD


@pytest.fixture
def images(model):
    torch.manual_seed(0)
    return torch.randn(2, 3, *model.visual.image_size)


def spoiled(images: torch.Tensor, value: float) -> torch.Tensor:
    images = images.clone()
    images[1, 2, -1, -1] = value
    return images


class TestRefused:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 255.0, -255.0])
    @pytest.mark.parametrize("call", ["encode_image", "forward", "generate", "visual"])
    def test_one_value(self, model, images, call, value):
        with pytest.raises(ValueError, match=rf"{value:g}.*preprocess\(image\)"):
            getattr(model, call)(spoiled(images, value))

    def test_pixels_that_were_not_normalized(self, model, images):
        with pytest.raises(ValueError, match="255.*expected.*preprocess"):
            model.encode_image(torch.rand_like(images) * 255)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
    def test_other_floats(self, dtype):
        require_normalized(torch.randn(1, 3, 8, 8).to(dtype), 20)
        with pytest.raises(ValueError, match="nan"):
            require_normalized(torch.full((1, 3, 8, 8), float("nan"), dtype=dtype), 20)


class TestTaken:
    def test_what_people_give(self, model, images):
        for given in (images, 2 * images, torch.zeros_like(images), torch.rand_like(images), images[:0]):
            assert model.encode_image(given).isfinite().all()

    def test_the_bound(self):
        assert highest(CLIP_MEAN, CLIP_STD) == pytest.approx(10 * (1 - CLIP_MEAN[2]) / CLIP_STD[2])
        assert highest((0.5,) * 3, (0.5,) * 3) == 20 and highest((0.0,) * 3, (0.01,) * 3) == 1000

    def test_gradients_flow(self, model, images):
        model.encode_image(images.requires_grad_()).sum().backward()
        assert images.grad.abs().sum() > 0


class Step(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_normalized(images, 20)
        return images * 2


class TestNothingIsRead:
    """Where a value can't be read, or reading it would wait for a device."""

    def test_without_data(self):
        Step()(torch.empty(2, 3, device="meta"))
        with FakeTensorMode():
            Step()(torch.empty(2, 3))

    def test_compiled_and_exported(self, images):
        assert torch.equal(torch.compile(Step(), fullgraph=True, backend="eager")(images), images * 2)
        for strict in (True, False):
            assert torch.equal(torch.export.export(Step(), (images,), strict=strict).module()(images), images * 2)
        for mode in ("real", "symbolic"):
            assert torch.equal(make_fx(Step(), tracing_mode=mode)(images)(images), images * 2)

    def test_functional_transforms(self, images):
        assert torch.equal(torch.func.vmap(Step())(images), images * 2)
        assert torch.equal(torch.func.grad(lambda x: Step()(x).sum())(images), torch.full_like(images, 2))
        small = images[0, 0, :2, :2]
        assert torch.func.jacfwd(Step())(small).shape == (2, 2, 2, 2)
