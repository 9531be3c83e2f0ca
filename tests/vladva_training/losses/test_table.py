"""A contrastive loss needs a line in the table of losses, and nothing else in the code."""

import inspect
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.training import runs
from vladva_training.config import LossSection, Recipe
from vladva_training.losses import CONTRASTIVE, PARTS, Contrastive
from vladva_training.losses.contrastive import info_nce
from vladva_training.overrides import apply
from vladva_training.plan.architecture import find_base, other_trainable
from vladva_training.train import train

COMMON = set(inspect.signature(info_nce).parameters)
BIAS_START = 0.25


def squared_distance(image_features, text_features, logit_scale, logit_bias, hardness, *, valid, **options):
    """A throw-away loss with a bias and a setting of the recipe."""
    distances = (image_features - text_features).square().sum(-1)
    loss = (logit_scale.exp() * distances + logit_bias - hardness).square()
    return (loss * valid).sum() / valid.sum().clamp(min=1)


@pytest.fixture(scope="module")
def base(bases) -> Path:
    """A tiny LLaVA, with pairs beside it."""
    runs.write_pairs(bases["llava"].parent / "pairs.jsonl")
    return bases["llava"]


@pytest.fixture
def registered(monkeypatch):
    line = Contrastive(f"{__name__}:squared_distance", bias_start=BIAS_START, settings=("hardness",))
    monkeypatch.setitem(CONTRASTIVE, "squared_distance", line)


def recipe_of(base: Path, directory: Path) -> Recipe:
    words = ["loss.contrastive=squared_distance", "loss.hardness=2", "loss.text_text_weight=0.5"]
    return apply(
        runs.small_recipe(base, directory, run={"steps": 2, "evaluate_every": 0, "checkpoint_every": 0}), words
    )


def test_a_loss_that_only_the_table_knows_trains(base, tmp_path, registered):
    """Two steps of a real run: the loss and the text-text loss are its values, and its bias is learned and saved."""
    recipe = recipe_of(base, tmp_path / "run")
    assert train(recipe) == 0
    first, second = runs.metrics(recipe)
    for line in (first, second):
        parts = [line[name] * weight for name, weight in recipe.loss.weights.items()]
        assert line["loss"] == pytest.approx(sum(parts), rel=1e-6)
    assert second["contrastive"] != first["contrastive"] and second["text_text"] != first["text_text"]
    state = load_file(tmp_path / "run/checkpoints/step-00000002/trainer.safetensors")
    assert 0 < abs(state["parameter/logit_bias"] - BIAS_START) < 0.1


def test_the_plan_counts_the_bias_of_a_loss_that_only_the_table_knows(base, tmp_path, registered):
    recipe = recipe_of(base, tmp_path)
    assert other_trainable(recipe, find_base(recipe.model))["logit_bias"] == 1


def test_a_name_outside_the_table_is_refused():
    with pytest.raises(ValueError, match=r"loss\.contrastive is 'squared_distance'.*" + ", ".join(CONTRASTIVE)):
        LossSection(contrastive="squared_distance")


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_each_function_takes_what_its_line_says(name):
    line = CONTRASTIVE[name]
    own = {*line.settings, *(["logit_bias"] if line.has_bias else [])}
    assert set(inspect.signature(line.function()).parameters) == COMMON | own
    assert set(line.settings) <= set(LossSection.__dataclass_fields__)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_each_loss_is_documented(name):
    guide = Path(__file__).parents[3] / "docs" / "training.md"
    assert f"`loss.contrastive={name}`" in guide.read_text() and f'"{name}"' in LossSection.__doc__


def test_weights_name_the_parts():
    assert tuple(LossSection().weights) == PARTS
    assert list(LossSection(text_text_weight=0.5, ntp_weight=2.0).weights.values()) == [1, 0.5, 2]
