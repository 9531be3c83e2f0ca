"""Repositories as laid out by their authors: a missing head, code of their own, counts; what the profiles state."""

import json

import pytest
import torch

import vladva_clip
from tests.support.published import samples
from tests.support.published.later_repositories import NAMES, QWEN3, REPOSITORIES
from tests.support.published.ours import Ours, profile
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import bases

SMALL, LARGE = QWEN3


@pytest.mark.wide
@pytest.mark.parametrize("name", ["gve-3b", "gve-7b", SMALL])
def test_with_its_head_it_generates(later, name):
    later.directory(name)
    ours = Ours(name, image_size=64 if name == SMALL else 56, cache_dir=later.cache_dir)
    assert ours.model.visual.backbone.has_head
    (text,) = ours.model.generate(ours.preprocess(samples.picture(448))[None], max_new_tokens=3)
    assert isinstance(text, str)


@pytest.mark.wide
def test_without_its_head_generating_is_refused(later):
    later.directory(LARGE)
    ours = Ours(LARGE, image_size=64, cache_dir=later.cache_dir)
    assert not ours.model.visual.backbone.has_head
    with pytest.raises(ValueError, match="without its language-model head"):
        ours.model.generate(ours.preprocess(samples.picture(448))[None], max_new_tokens=3)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("name", "part", "value", "error"),
    [
        (LARGE, ("config", "encoding", "headless"), False, "lm_head"),
        ("gve-3b", ("admits", "auto_map"), False, "auto_map"),
    ],
)
def test_what_only_the_profile_admits(later, tmp_path, name, part, value, error):
    data = profile(name)
    *outer, last = part
    inner = data
    for key in outer:
        inner = inner[key]
    assert inner[last] != value
    inner[last] = value
    (tmp_path / "strict.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=error):
        Ours(f"local-dir:{later.directory(name)}", profile=tmp_path / "strict.json")


@pytest.mark.wide
@pytest.mark.parametrize("name", NAMES)
def test_without_a_profile_it_is_refused(later, name):
    with pytest.raises(ValueError, match="embedder|auto_map"):
        vladva_clip.create_model(f"local-dir:{later.directory(name)}")


@pytest.mark.wide
@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_counted_as_published(name):
    data, stated = profile(name), bases.find(profile(name)["base"]).config
    headless = data["config"]["encoding"]["headless"]
    backbone = backbone_class(data["config"]["family"]).from_config(stated, torch.bfloat16, headless=headless)
    assert backbone.embed_dim == data["config"]["embed_dim"]
    assert sum(parameter.numel() for parameter in backbone.lvlm.parameters()) == data["num_parameters"]
    assert data["download_gb"] == round(data["num_parameters"] * 2 / 1e9, 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_profile_states_every_decision_and_its_source(name):
    data = profile(name)
    assert data["name"] == name and list(data["tags"])[-1] == "default"
    assert (data["repository"], data["revision"]) == (REPOSITORIES[name].repo, REPOSITORIES[name].revision)
    stated = {"image_template", "text_template", "positions", "pooling", "attention", "dtype", "context_length"}
    stated |= {"image.size", "clean", "license", "revision", "num_parameters"} | (set(data["tags"]) - {"default"})
    assert stated <= set(data["sources"]) and data["unverified"]
    assert set(data["instructions"]) == set(data["tags"]) - {"default"}
    for tag, instruction in data["instructions"].items():
        assert instruction in data["tags"][tag]["text_template"]
    pairs = vladva_clip.list_pretrained()
    assert [tag for model, tag in pairs if model == name] == list(data["tags"])
    dims = data["config"]["encoding"]["matryoshka_dims"]
    assert not dims or dims[-1] == data["config"]["embed_dim"]
