"""Repositories as their authors laid them out: a missing head, another revision, code of their own; counts."""

import json
import logging

import pytest
import torch

import vladva_clip
from tests.support.published import authors, repositories, samples
from tests.support.published.ours import Ours, profile
from tests.support.published.shelf import NAMES, Shelf
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import bases

GME_7B = "gme-qwen2-vl-7b"
REPO = repositories.REPOSITORIES[GME_7B].repo


@pytest.fixture
def at_main(shelf, tmp_path):
    """A cache with GME 7B as it is at main: without a head, with code of its own."""
    own = Shelf(tmp_path / "cache", shelf.tokenizer)
    return own.cache_dir, repositories.put(own.cache_dir, repositories.GME_7B_AT_MAIN, own.tokenizer)


def test_with_its_head_it_generates(shelf):
    shelf.directory(GME_7B)
    ours = Ours(GME_7B, cache_dir=shelf.cache_dir)
    assert ours.model.visual.backbone.has_head
    (text,) = ours.model.generate(ours.preprocess(samples.picture(448))[None], max_new_tokens=3)
    assert isinstance(text, str)


def test_without_its_head_it_embeds_and_generating_is_refused(at_main, caplog):
    cache_dir, snapshot = at_main
    with caplog.at_level(logging.WARNING):
        ours = Ours(f"hf-hub:{REPO}", cache_dir=cache_dir)
    assert "b" * 40 in caplog.text and profile(GME_7B)["revision"] in caplog.text  # made for another revision
    way = authors.Authors(snapshot, authors.GME)
    captions, pictures = list(samples.CAPTIONS.values()), [samples.picture(448)]
    torch.testing.assert_close(ours.text(captions), way.features(way.text_inputs(captions)), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.images(pictures), way.features(way.image_inputs(pictures)), atol=1e-5, rtol=0)
    assert not ours.model.visual.backbone.has_head
    with pytest.raises(ValueError, match="head"):
        ours.model.generate(ours.preprocess(pictures[0])[None], max_new_tokens=3)


def test_the_profiles_own_revision_is_not_warned_of(shelf, caplog):
    shelf.directory(GME_7B)
    with caplog.at_level(logging.WARNING):
        Ours(GME_7B, cache_dir=shelf.cache_dir)
    assert "revision" not in caplog.text


def test_a_head_may_be_missing_only_where_the_profile_says_so(at_main, tmp_path):
    data = profile(GME_7B)
    data["config"]["encoding"]["headless"] = False
    (tmp_path / "strict.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="lm_head"):
        Ours(f"local-dir:{at_main[1]}", profile=tmp_path / "strict.json")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_counted_as_published(name):
    data = profile(name)
    family = backbone_class(data["config"]["family"])
    backbone = family.from_config(bases.find(data["base"]).config, torch.bfloat16)
    assert backbone.embed_dim == data["config"]["embed_dim"]
    assert sum(parameter.numel() for parameter in backbone.lvlm.parameters()) == data["num_parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_the_profile_states_every_decision_and_its_source(name):
    data = profile(name)
    assert data["name"] == name and list(data["tags"])[-1] == "default"
    assert data["repository"] == repositories.REPOSITORIES[name].repo
    assert data["revision"] in (None, repositories.REPOSITORIES[name].revision)
    stated = {"image_template", "text_template", "positions", "pooling", "attention", "dtype", "context_length"}
    stated |= {"image.size", "clean", "license", "revision", "num_parameters"} | (set(data["tags"]) - {"default"})
    assert stated <= set(data["sources"]) and data["unverified"]
    assert set(data["instructions"]) == set(data["tags"]) - {"default"}
    for tag, instruction in data["instructions"].items():
        assert instruction in data["tags"][tag]["text_template"]
    assert vladva_clip.list_pretrained().count((name, "default")) == 1
