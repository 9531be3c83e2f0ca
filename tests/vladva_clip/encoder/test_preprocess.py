"""Our transform against the bases' own image processors, on photographs."""

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, Qwen2VLImageProcessor

from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.preprocess import image_transform
from vladva_clip.sources import registry


def photographs(shared_data):
    paths = sorted((shared_data / "data" / "photos").glob("*.JPEG"))
    assert len(paths) == 128
    for path in paths:
        with Image.open(path) as image:
            image.load()
            yield path.name, image


def image_config(name: str):
    config = registry.architecture(name)
    return backbone_class(config["model_type"]).image_config(config, None, registry.facts(name).image_size)


def test_llava_equals_its_own_processor(shared_data):
    transform = image_transform(image_config("vladva-7b"))
    processor = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    for name, image in photographs(shared_data):
        own = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        cosine = torch.cosine_similarity(transform(image).flatten(), own.flatten(), dim=0)
        assert cosine > 0.9999, name


def test_qwen_equals_its_own_processor_on_square_images(shared_data):
    """Its processor keeps the aspect ratio, so only square images have one answer."""
    transform = image_transform(image_config("vladva-2b"))
    processor = Qwen2VLImageProcessor(size={"shortest_edge": 448 * 448, "longest_edge": 448 * 448})
    patches = backbone_class("qwen2_vl").from_config(registry.architecture("vladva-2b"), torch.float32).patches
    for name, image in list(photographs(shared_data))[:16]:
        square = image.convert("RGB").resize((896, 896))  # halved exactly; other sizes meet its rounding of sides
        own = processor(square, return_tensors="pt")["pixel_values"]
        ours = patches(transform(square)[None])
        assert torch.cosine_similarity(ours.flatten(), own.flatten(), dim=0) > 0.9999, name


@pytest.mark.parametrize(("name", "size"), [("vladva-7b", 336), ("vladva-2b", 448)])
def test_every_photograph_becomes_one_fixed_size(shared_data, name, size):
    transform = image_transform(image_config(name))
    for photograph, image in list(photographs(shared_data))[::8]:
        pixels = transform(image)
        assert (pixels.shape, pixels.dtype) == ((3, size, size), torch.float32), photograph
