"""The recipes: the paper's settings, and variants that differ only where they should."""

import re
from pathlib import Path

import pytest

from vladva_clip.sources.registry import find_tag
from vladva_training import recipes
from vladva_training.config import flat


def test_the_7b_has_the_papers_figures():
    values = flat(recipes.llava15_7b())
    stated = {
        "model.name": "vladva-7b",
        "model.train": "lora",
        "model.lora_rank": 16,
        "model.lora_alpha": 16,
        "model.soft_prompt": True,
        "model.lora_dropout": 0.0,
        "batch.size": 1024,
        "run.epochs": 7,
        "run.steps": None,
        "optim.learning_rate": 1e-4,
        "optim.beta1": 0.9,
        "optim.beta2": 0.999,
        "optim.final_share": 0.0,
        "data.short_max_tokens": 30,
        "data.long_max_tokens": 500,
        "loss.contrastive": "info_nce",
        "loss.ntp_weight": 1.0,
        "optim.weight_decay": 0.0,
    }
    assert {key: values[key] for key in stated} == stated
    assert len(values["data.train"]) == 3 and values["data.weights"] == ()  # all of the 8.1 million pairs


@pytest.mark.parametrize("name", ["llava15_13b", "qwen2vl_2b"])
def test_the_other_sizes_differ_from_the_7b_only_in_size(name):
    ours, paper = flat(recipes.get(name)), flat(recipes.llava15_7b())
    assert {key for key in ours if ours[key] != paper[key]} == {"name", "output_dir", "model.name", "batch.micro_size"}


ALLOWED = {"name", "output_dir", "data.train", "data.num_workers", "run.steps", "run.epochs", "run.checkpoint_every"}
ALLOWED |= {"batch.size", "batch.micro_size", "optim.learning_rate"}


@pytest.mark.parametrize(
    ("name", "paper", "more"),
    [
        ("llava15_7b_80gb", "llava15_7b", set()),
        ("llava15_7b_24gb", "llava15_7b", {"model.train"}),
        ("qwen2vl_2b_24gb", "qwen2vl_2b", set()),
        ("smolvlm_256m_laptop", "llava15_7b", {"model.name"}),
    ],
)
def test_recipes_for_one_gpu_differ_from_the_papers_in_length_batch_and_rate(name, paper, more):
    ours, theirs = recipes.get(name), recipes.get(paper)
    values, papers = flat(ours), flat(theirs)
    assert {key for key in values if values[key] != papers[key]} <= ALLOWED | more
    assert values["optim.learning_rate"] == recipes.short_run_rate(ours.batch.size)
    assert "predicted, not run" in recipes.RECIPES[name].__doc__.partition("\n")[0]


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        *(("llava15_7b_80gb", 10**6), ("llava15_7b_24gb", 150_000), ("qwen2vl_2b_24gb", 10**6)),
        ("smolvlm_256m_laptop", 100_000),
    ],
)
def test_their_shards_hold_their_pairs_and_few_more(name, pairs):
    """A shard of CC3M has 5,045 or 5,046 pairs, so that no pair comes twice."""
    recipe = recipes.get(name)
    (first, last) = re.search(r"\{(\d{4})\.\.(\d{4})\}", recipe.data.train[0]).groups()
    held, seen = 5045 * (int(last) - int(first) + 1), recipe.run.steps * recipe.batch.size
    assert seen == pytest.approx(pairs, rel=1e-3) and seen <= held < 1.02 * seen


def test_the_rate_of_short_runs():
    """Between the paper's 1e-4 and E5-V's 4e-4 at the paper's batch, with the square root of the batch."""
    assert recipes.short_run_rate(1024) == pytest.approx((1e-4 * 4e-4) ** 0.5)
    assert recipes.short_run_rate(256) == pytest.approx(recipes.short_run_rate(1024) / 2)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_each_recipe_is_known_by_its_name_and_says_what_it_is(name):
    recipe = recipes.get(name)
    assert recipe.name == name and recipe.output_dir == f"runs/{name}"
    assert find_tag(recipe.model.name, recipe.model.pretrained)
    assert recipes.RECIPES[name].__doc__.partition("\n")[0].endswith(".")


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_the_guide_states_each_recipes_batch(name):
    guide = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (row,) = [line for line in guide.splitlines() if line.startswith(f"| `{name}` |")]
    batch = recipes.get(name).batch
    assert row.endswith(f"| {batch.size}, {batch.micro_size or 'all'} |")


def test_debug_goes_through_grad_cache_and_leaves_checkpoints_on_the_way():
    recipe = recipes.debug()
    assert recipe.batch.micro_size < recipe.batch.size and recipe.run.checkpoint_every < recipe.run.steps


@pytest.mark.parametrize(("name", "near"), [("llava15-7b", "llava15_7b"), ("tny", "tiny"), ("qwen", "qwen2vl_2b")])
def test_an_unknown_recipe_names_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"unknown recipe '{name}'; .*{near}"):
        recipes.get(name)
