"""Bases published without their language-model head."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vladva_clip
from tests.support import adapters, stated
from tests.support.edits import edit_json
from vladva_clip.encoder.backbones import heads

SAYS = "without its language-model head"


@pytest.fixture(scope="module")
def whole(bases, tmp_path_factory) -> Path:
    """A tiny Qwen2-VL with a head of its own that may lack it."""
    place = tmp_path_factory.mktemp("whole") / "base"
    return stated.untie(stated.copy(bases["qwen2_vl"], place, headless=True))


@pytest.fixture(scope="module")
def headless(whole, tmp_path_factory) -> Path:
    """The same without its head."""
    place = tmp_path_factory.mktemp("headless") / "base"
    return stated.without(Path(shutil.copytree(whole, place)), stated.HEAD)


def images_for(model) -> torch.Tensor:
    return torch.randn(2, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(0))


def test_its_features_are_those_of_the_base_with_its_head(whole, headless):
    with_head, model = adapters.load(whole), adapters.load(headless)
    assert with_head.visual.backbone.has_head and not model.visual.backbone.has_head
    assert not with_head.visual.backbone.head_is_tied and not model.visual.backbone.head_is_tied
    assert adapters.same(model, with_head)
    assert with_head.generate(images_for(with_head), max_new_tokens=2)


def test_transformers_table_of_missing_tensors_is_not_shown(headless, capfd):
    """It would say that the head was newly initialized, and to train it."""
    adapters.load(headless)
    assert "MISSING" not in capfd.readouterr().err


def test_what_needs_the_head_says_why(headless):
    model = adapters.load(headless)
    for prompt in (None, "What is it?"):
        with pytest.raises(ValueError, match=SAYS):
            model.generate(images_for(model), prompt)
    with pytest.raises(ValueError, match=SAYS):
        model.visual.backbone.head(torch.zeros(1, 32))
    with pytest.raises(ValueError, match=SAYS):
        model.require_generation()


@pytest.mark.parametrize("way", ["bare", "stated"])
def test_a_base_that_must_have_it_is_refused_by_the_tensors_name(headless, bases, tmp_path, way):
    place = tmp_path / "base"
    if way == "stated":
        stated.without(stated.untie(stated.copy(bases["qwen2_vl"], place)), stated.HEAD)
    else:
        shutil.copytree(headless, place, ignore=shutil.ignore_patterns("vladva_*"))
    with pytest.raises(ValueError, match=stated.HEAD):
        adapters.load(place)


@pytest.mark.parametrize(
    "name", ["layers.1.self_attn.k_proj.bias", "model.norm.weight", "merger.mlp.0.weight", "embed_tokens.weight"]
)
def test_no_other_tensor_may_be_missing(headless, tmp_path, name):
    place = stated.without(Path(shutil.copytree(headless, tmp_path / "base")), name)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        adapters.load(place)


def test_a_head_of_another_shape_is_refused(whole, tmp_path):
    place = Path(shutil.copytree(whole, tmp_path / "base"))
    tensors = load_file(place / stated.WEIGHTS)
    save_file(tensors | {stated.HEAD: tensors[stated.HEAD][:-1].clone()}, place / stated.WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=stated.HEAD):
        adapters.load(place)


def test_a_tied_base_keeps_its_head(bases, tmp_path):
    model = adapters.load(stated.copy(bases["qwen2_vl"], tmp_path / "base", headless=True))
    assert model.visual.backbone.head_is_tied and model.generate(images_for(model), max_new_tokens=2)
    model = adapters.load(tmp_path / "base", load_weights=False)
    assert model.visual.backbone.head_is_tied


def test_a_llava_may_lack_it_too(bases, tmp_path):
    place = stated.without(stated.copy(bases["llava"], tmp_path / "base", headless=True), stated.HEAD)
    model = adapters.load(place)
    assert not model.visual.backbone.has_head and adapters.same(model, adapters.load(bases["llava"]))


def test_without_weights(headless):
    """Whether the files have a head isn't known then, so none is built."""
    model = adapters.load(headless, load_weights=False)
    assert not model.visual.backbone.has_head
    assert model.encode_image(images_for(model)).shape == (2, 32)


@pytest.mark.parametrize("merge_lora", [True, False])
def test_an_adapter_over_it_loads_again(headless, tmp_path, merge_lora):
    model = adapters.with_lora(adapters.load(headless))
    model.save_pretrained(tmp_path / "adapter")
    again = adapters.load(tmp_path / "adapter", merge_lora=merge_lora)
    assert not again.visual.backbone.has_head and isinstance(again.visual.backbone.lvlm.lm_head, heads.NoHead)
    for found, expected in zip(adapters.features(again), adapters.features(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert again.config.encoding.headless
    with pytest.raises(ValueError, match=SAYS):
        again.generate(images_for(again))


def test_a_lora_on_the_missing_head_is_refused(whole, headless, tmp_path):
    """An adapter of the whole base that trains its head doesn't fit the base without one."""
    model = adapters.with_lora(adapters.load(whole), target_modules=r"lm_head|.*language_model.*\.q_proj")
    model.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "vladva_config.json").read_text())
    edit_json(tmp_path / "adapter" / "vladva_config.json", base=config["base"] | {"id": f"local-dir:{headless}"})
    assert adapters.load(whole)
    with pytest.raises(ValueError, match="NoHead"):
        adapters.load(tmp_path / "adapter")


def test_a_copy_of_the_model_has_none_either(headless):
    model = adapters.load(headless)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not other.visual.backbone.has_head and adapters.same(other, model)


def test_bf16(headless):
    model, _ = vladva_clip.create_model(f"local-dir:{headless}", precision="bf16")
    assert model.visual.backbone.dtype == torch.bfloat16 and not model.visual.backbone.has_head
