"""The facts about the built-in models' bases, which are data in `assets/bases.json`."""

import json
from importlib.resources import files

import pytest
import torch

from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.sources import bases, registry


@pytest.mark.parametrize("name", registry.MODELS)
def test_every_built_in_model_has_its_facts(name):
    facts = registry.facts(name)
    licenses = ("apache-2.0", "llama2", "llama3", "mit", "qwen", "qwen-research")
    assert facts.license in licenses or (name, facts.license) == ("e5-v", None)  # states none
    assert facts.dtype in ("float32", "bfloat16", "float16")
    assert (facts.config is None) == (registry.find(name).base is None)


@pytest.mark.parametrize("name", [name for name, entry in registry.MODELS.items() if entry.profile is None])
def test_its_number_of_parameters_is_that_of_its_shapes(name):
    shapes = registry.architecture(name)
    built = backbone_class(shapes["model_type"]).from_config(shapes, torch.bfloat16)
    assert sum(parameter.numel() for parameter in built.parameters()) == registry.facts(name).num_parameters


def test_every_stored_base_is_a_built_in_models():
    stored = json.loads(files("vladva_clip").joinpath(bases.FILE).read_text())
    entries = registry.MODELS.items()
    assert set(stored) == {entry.profile.base if entry.profile else entry.base or name for name, entry in entries}


def test_another_base_is_unknown():
    assert bases.find("org/base") is None


def test_a_callers_change_does_not_reach_the_next_caller():
    registry.architecture("vladva-7b")["text_config"]["hidden_size"] = 8
    assert registry.architecture("vladva-7b")["text_config"]["hidden_size"] == 4096
