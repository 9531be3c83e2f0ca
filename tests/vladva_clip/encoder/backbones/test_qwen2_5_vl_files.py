"""Qwen2.5-VL's files: published sizes and tensor names, and configs whose parts don't fit."""

import json
import shutil
from functools import cache

import pytest
import torch
from PIL import Image

import vladva_clip
from tests.support import hub_cache
from tests.support.models import tiny_qwen2_5_vl
from vladva_clip import factory
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import registry
from vladva_clip.storage.base import BaseFiles

# parameters and tensors: of the model, of its vision tower; whether the head is tied
PUBLISHED = {
    "qwen2.5-vl-3b": (3_754_622_976, 824, 668_684_288, 390, True),
    "qwen2.5-vl-7b": (8_292_166_656, 729, 676_550_144, 390, False),
}


@cache
def published(name: str):
    return backbone_class("qwen2_5_vl").from_config(registry.architecture(name), torch.bfloat16)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name):
    backbone = published(name)
    found = []
    for part in (backbone, backbone.vision_tower):
        parameters = list(part.parameters())
        assert all(parameter.is_meta for parameter in parameters)
        found += [sum(parameter.numel() for parameter in parameters), len(parameters)]
    assert (*found, backbone.head_is_tied) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "width", "layers"), [("qwen2.5-vl-3b", 2048, 36), ("qwen2.5-vl-7b", 3584, 28)])
def test_shapes_of_the_published_sizes(name, width, layers):
    backbone, config = published(name), factory.get_model_config(name)
    assert backbone.embed_dim == config["embed_dim"] == width
    assert len(backbone.trunk_module.layers) == layers and len(backbone.vision_blocks) == 32
    assert config["vision_cfg"]["image_size"] == 448 and backbone.num_visual_tokens(448) == 256
    assert backbone.patches(torch.empty(2, 3, 448, 448, device="meta")).shape == (2 * 1024, 3 * 2 * 14 * 14)
    for size in (28, 84, 1260):
        backbone.check_parts(size)
        assert backbone.num_visual_tokens(size) == (size // 28) ** 2
    assert vladva_clip.list_pretrained(as_str=True).count(f"{name}:training_free") == 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_older_tensor_names_of_the_hub_are_the_same_model(bases, name, tmp_path):
    """Under the published name, from the Hub's cache: `visual.*` and `model.*`, as transformers 5 writes no more."""
    snapshot = hub_cache.put(tmp_path, registry.find(name).base, bases["qwen2_5_vl"])
    tiny_qwen2_5_vl.rename_to_hub(snapshot)
    stored = set(BaseFiles(snapshot).shapes)
    assert {"visual.merger.ln_q.weight", "model.embed_tokens.weight"} < stored
    assert not [key for key in stored if "language_model" in key or key.startswith("model.visual")]
    assert BaseFiles(snapshot).fingerprint == BaseFiles(bases["qwen2_5_vl"]).fingerprint
    model, preprocess = vladva_clip.create_model(name, precision="fp32", cache_dir=tmp_path)
    direct, _ = vladva_clip.create_model(f"local-dir:{bases['qwen2_5_vl']}", precision="fp32")
    picture = preprocess(Image.new("RGB", (60, 60), "red"))[None]
    tokens = vladva_clip.get_tokenizer(name, cache_dir=tmp_path)(["a red circle"])
    assert model.config.base.id == registry.find(name).base and model.visual.image_size == (448, 448)
    assert torch.equal(model.encode_image(picture), direct.encode_image(picture))
    assert torch.equal(model.encode_text(tokens), direct.encode_text(tokens))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_heads": 3}, "widths 32 and 32 can't be divided among 3 and 4 heads"),
        ({"num_heads": 16}, "a head of the vision tower is 2 wide, expected a multiple of 4"),
        ({"out_hidden_size": 64}, "out_hidden_size is 64, expected 32, as the LLM"),
        ({"window_size": 27}, "window_size is 27 pixels, expected at least 28"),
        ({"window_size": 0}, "window_size.*expected"),
        ({"fullatt_block_indexes": [1, 4]}, "fullatt_block_indexes names block 4, but the vision tower has 4"),
        ({"fullatt_block_indexes": [-1]}, "fullatt_block_indexes.*expected"),
        ({"fullatt_block_indexes": 3}, "fullatt_block_indexes.*expected"),
        ({"model_type": "qwen2_vl"}, "model_type.*qwen2_vl.*expected.*qwen2_5_vl"),
        ({"patch_size": 16}, "patch_size is 14, config.json's patch_size 16"),
        ({"rope_parameters": {"rope_type": "axial", "rope_theta": 5000.0}}, "rope_theta.*expected"),
    ],
)
def test_a_vision_tower_that_does_not_fit_is_refused(bases, tmp_path, changes, said):
    refused(bases, tmp_path, said, lambda config: config["vision_config"].update(changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]}},
            "mrope_section is .*1, 1, 1.*head's width, 8",
        ),
        ({"num_attention_heads": 3}, "hidden_size must be divisible by num_heads|can't be divided among 2 and 3 heads"),
        ({"model_type": "qwen2_5"}, "'qwen2_5' is not supported; did you mean qwen2_5_vl"),
    ],
)
def test_a_language_model_that_does_not_fit_is_refused(bases, tmp_path, changes, said):
    refused(bases, tmp_path, said, lambda config: config.update(changes))


def refused(bases, tmp_path, said: str, change) -> None:
    copy = shutil.copytree(bases["qwen2_5_vl"], tmp_path / "base")
    config = json.loads((copy / "config.json").read_text())
    change(config)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=said):
        vladva_clip.create_model(f"local-dir:{copy}", precision="fp32", force_image_size=112)


def test_an_image_of_too_many_patches_is_refused():
    with pytest.raises(ValueError, match="1288 pixels makes more than 8192 patches"):
        published("qwen2.5-vl-3b").check_parts(1288)


def test_an_image_processor_of_another_family_is_refused(bases, tmp_path):
    copy = shutil.copytree(bases["qwen2_5_vl"], tmp_path / "base")
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps({**settings, "processor_class": "Qwen2VLProcessor"}))
    with pytest.raises(ValueError, match="processor_class.*Qwen2_5_VLProcessor"):
        vladva_clip.create_model(f"local-dir:{copy}")
