"""The untrained model is measured at step 0, which does not affect training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.training import runs
from vladva_training.cli import main
from vladva_training.config import Recipe
from vladva_training.run.evaluation import RECALLS
from vladva_training.train import train


def recipe_of(base: Path, directory: Path, **changes: dict) -> Recipe:
    changes.setdefault("data", {})["evaluation"] = f"jsonl:{base.parent / 'pairs.jsonl'}"
    return runs.small_recipe(base, directory, **changes)


def steps_measured(recipe: Recipe) -> list[int]:
    return [line["step"] for line in runs.metrics(recipe, "evaluation")]


def test_evaluating_changes_no_bit_of_the_run(base_with_pairs, tmp_path):
    measured = recipe_of(base_with_pairs, tmp_path / "measured", run={"evaluate_every": 5})
    alone = runs.small_recipe(base_with_pairs, tmp_path / "alone")
    assert train(measured) == train(alone) == 0
    assert steps_measured(measured) == [0, 5, 10, 12]
    assert runs.adapter(measured)["adapter_model.safetensors"] == runs.adapter(alone)["adapter_model.safetensors"]
    losses = [[line["loss"] for line in runs.metrics(recipe)] for recipe in (measured, alone)]
    assert losses[0] == losses[1]


def test_zero_evaluates_only_the_last_step(base_with_pairs, tmp_path):
    recipe = recipe_of(base_with_pairs, tmp_path / "run", run={"evaluate_every": 0, "steps": 3})
    assert train(recipe) == 0
    assert steps_measured(recipe) == [3]


def test_a_resumed_run_does_not_measure_it_again(base_with_pairs, tmp_path):
    recipe = recipe_of(base_with_pairs, tmp_path / "run", run={"steps": 3, "checkpoint_every": 1})
    assert train(recipe) == 0
    before = runs.metrics(recipe, "evaluation")
    (tmp_path / "run" / "adapter").rename(tmp_path / "adapter")
    assert train(replace(recipe, resume=True)) == 0
    assert runs.metrics(recipe, "evaluation") == before and steps_measured(recipe) == [0, 3]


@pytest.mark.parametrize(("rate", "best"), [(5e-3, 12), (1e-12, 0)])
def test_the_untrained_model_may_be_the_best(base_with_pairs, tmp_path, rate, best):
    """With almost no learning rate nothing changes, and the first of equal checkpoints stays."""
    run = {"best_metric": "ntp_loss", "keep_last": 1, "evaluate_every": 12}
    recipe = recipe_of(base_with_pairs, tmp_path / "run", optim={"learning_rate": rate}, run=run)
    assert train(recipe) == 0
    figures = {line["step"]: line["ntp_loss"] for line in runs.metrics(recipe, "evaluation")}
    kept = json.loads((tmp_path / "run/checkpoints/best.json").read_text())
    assert kept["step"] == best and kept["value"] == min(figures.values()) == figures[best]
    assert kept["checkpoint"] == f"step-{best:08d}" and (tmp_path / "run/checkpoints" / kept["checkpoint"]).is_dir()


@pytest.mark.parametrize("metric", [*RECALLS, "ntp_loss"])
def test_each_figure_can_be_the_best_metric(base_with_pairs, tmp_path, metric):
    run = {"best_metric": metric, "steps": 1, "checkpoint_every": 0}
    recipe = recipe_of(base_with_pairs, tmp_path / "run", data={"evaluation_count": 20}, run=run)
    assert train(recipe) == 0
    assert json.loads((tmp_path / "run/checkpoints/best.json").read_text())["metric"] == metric


def test_too_few_images_for_a_recall_are_reported(base_with_pairs, tmp_path, capsys):
    run = {"best_metric": "text_to_image_R@10", "steps": 1}
    recipe = recipe_of(base_with_pairs, tmp_path / "run", data={"evaluation_count": 8}, run=run)
    assert train(recipe) == 0
    said = capsys.readouterr().err
    assert said.count("run.best_metric text_to_image_R@10 is not among these figures") == 1
    assert not (tmp_path / "run/checkpoints/best.json").exists()


@pytest.mark.slow
def test_the_debug_recipe_learns(tmp_path, capsys):
    """The scenes of a family differ in one fact each; the base knows most of them."""
    assert main(["debug", f"output_dir={tmp_path / 'run'}", "--device", "cpu"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = [line for line in lines if line["event"] == "evaluation"]
    assert (first["step"], last["step"]) == (0, 80)
    assert 0.6 <= first["image_to_text_R@1"] <= last["image_to_text_R@1"] - 0.1
    assert last["text_to_image_R@1"] > first["text_to_image_R@1"] and last["foils"] > first["foils"] + 0.02
    assert last["ntp_loss"] < first["ntp_loss"]
    losses = [line["contrastive"] for line in lines if line["event"] == "train"]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    said = capsys.readouterr().err
    assert "step 0: text_to_image_R@1" in said and "step 80: text_to_image_R@1" in said
