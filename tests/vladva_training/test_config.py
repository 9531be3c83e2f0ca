"""Sections refuse invalid values, and state what they found and expect."""

from dataclasses import fields, is_dataclass, replace

import pytest

from vladva_training.config import Recipe, flat
from vladva_training.overrides import apply
from vladva_training.recipes import RECIPES, debug


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.train=lore", "model.train is 'lore', expected one of lora, qlora, full, none"),
        ("model.lora_rank=0", "model.lora_rank is 0, expected at least 1"),
        ("model.lora_dropout=1", "model.lora_dropout is 1.0, expected from 0 to below 1"),
        ("data.train=", "data.train is \\(\\), expected at least one"),
        ("data.weights=1,2,3", "data.weights is .*, expected none or 1"),
        ("data.weights=0", "data.weights is .*, expected positive shares"),
        ("data.long_max_tokens=20", "data.long_max_tokens is 20, expected at least data.short_max_tokens .30"),
        ("data.max_bad_share=2", "data.max_bad_share is 2.0, expected a share from 0 to 1"),
        ("loss.contrastive=clip", "loss.contrastive is 'clip', expected one of info_nce, sigmoid, hardness"),
        ("loss.false_negatives=true", "loss.false_negatives is 'true', expected one of none, identical, near, known"),
        ("loss.ntp_weight=-1", "loss.ntp_weight is -1.0, expected 0 or more"),
        ("optim.learning_rate=0", "optim.learning_rate is 0.0, expected above 0"),
        ("optim.on_non_finite=go", "optim.on_non_finite is 'go', expected one of stop, skip"),
        ("batch.size=1", "batch.size is 1, expected at least 2"),
        ("batch.micro_size=0", "batch.micro_size is 0, expected at least 1"),
        ("batch.autocast=float8", "batch.autocast is 'float8', expected one of bf16, fp32"),
        ("batch.visual_cache=disk", "batch.visual_cache is 'disk', expected one of device, cpu"),
        ("run.steps=0", "run.steps is 0, expected at least 1"),
        ("run.sigterm_exit_code=256", "run.sigterm_exit_code is 256, expected from 0 to 255"),
        ("output_dir=", "output_dir is '', expected a directory"),
    ],
)
def test_an_invalid_value_is_refused(word, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        apply(debug(), [word])


def test_training_only_the_scale_is_refused():
    with pytest.raises(ValueError, match="model.train is 'none', expected soft_prompt=true beside it"):
        apply(debug(), ["model.train=none", "model.soft_prompt=false"])


def test_nan_is_refused():
    """`overrides` refuses the word, but a recipe's function could set it."""
    with pytest.raises(ValueError, match="optim.learning_rate is nan"):
        replace(debug().optim, learning_rate=float("nan"))


@pytest.mark.parametrize("micro_size", ["none", "4"])
def test_checkpointing_works_with_whole_batches_and_micro_batches(micro_size):
    recipe = apply(debug(), [f"batch.micro_size={micro_size}", "model.gradient_checkpointing=true"])
    assert recipe.model.gradient_checkpointing


@pytest.mark.parametrize("name", RECIPES)
def test_flat_names_every_field_once(name):
    recipe = RECIPES[name]()
    sections = [item.name for item in fields(Recipe) if is_dataclass(getattr(recipe, item.name))]
    expected = [f"{section}.{key.name}" for section in sections for key in fields(getattr(recipe, section))]
    assert sorted(flat(recipe)) == sorted([*expected, "name", "output_dir", "seed", "resume"])


def test_the_home_directory_in_output_dir_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert replace(debug(), output_dir="~/runs").output_dir == "/home/ada/runs"
    assert replace(debug(), output_dir="runs/~a/").output_dir == "runs/~a/"
    with pytest.raises(ValueError, match="nobody-of-that-name"):
        replace(debug(), output_dir="~nobody-of-that-name/runs")
