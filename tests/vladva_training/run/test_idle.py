"""Losses and figures that the data has no captions for: said before the run, and in it; never shown as 0."""

import csv
import re

import pytest

from tests.support.samples import picture
from tests.support.training import runs
from vladva_training.config import Recipe
from vladva_training.train import train

SHORT = "a red circle left of a blue square"
LONG = f"{SHORT} on a green dog below the cat " * 2


@pytest.fixture
def table(tmp_path):
    """A function that writes a CSV of pictures, a row per caption, and returns its spec."""

    def write(*captions: str, name: str = "table") -> str:
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image_path", "caption"])
            for number, caption in enumerate(captions):
                picture(number).save(tmp_path / f"{name}{number}.png")
                rows.writerow([f"{name}{number}.png", caption])
        return f"csv:{tmp_path / f'{name}.csv'}"

    return write


@pytest.fixture
def run(bases, tmp_path, capsys):
    """A function that takes two steps on sources and returns the recipe, and the lines it said that matter."""

    def run_on(*specs: str, loss: dict | None = None, evaluation: str | None = None) -> tuple[Recipe, list[str]]:
        data = {"train": specs, "evaluation": evaluation, "short_max_tokens": 30, "long_max_tokens": 80}
        recipe = runs.small_recipe(
            bases["llava"], tmp_path / "run", data=data, loss=loss or {}, run={"steps": 2, "checkpoint_every": 0}
        )
        assert train(recipe) == 0
        said = re.split(r"[\r\n]+", capsys.readouterr().err.replace("\x1b[A", ""))  # bars of other tests lie below
        return recipe, [line.strip() for line in said if "warning" in line or "note" in line or "ntp=" in line]

    return run_on


def test_a_table_without_long_captions_is_warned_about_with_numbers(table, run):
    recipe, said = run(table(*[f"{SHORT} {number}" for number in range(9)]))
    start, in_the_run, at_the_end = said
    assert start.startswith("warning: loss.ntp_weight 1 adds nothing: none of the 9 records ") and "csv:" in start
    for part in ("data.short_max_tokens=30 to data.long_max_tokens=80", "vladva-train caption", "loss.ntp_weight=0"):
        assert part in start
    assert in_the_run.startswith("note: step 1 had no long caption among its 4 images")
    assert at_the_end.startswith("warning: no step since the last start had a long caption")
    assert all("ntp" not in line and line["loss"] == line["contrastive"] for line in runs.metrics(recipe))


def test_who_asks_for_no_next_token_prediction_hears_nothing(table, run):
    assert run(table(*[f"{SHORT} {number}" for number in range(9)]), loss={"ntp_weight": 0.0})[1] == []


def test_captions_that_are_longer_still_are_counted(table, run):
    rows = [f'["{SHORT} {number}", "{LONG * 9 if number < 3 else SHORT}"]' for number in range(9)]
    _, said = run(table(*rows))
    assert "none of the 9 records" in said[0] and "80 tokens; " in said[0] and "longer: 3)" in said[0]
    assert "raise data.long_max_tokens" in said[0]


def test_a_source_with_some_long_captions_is_warned_about_where_a_step_has_none(table, run):
    """Seed 0 takes other records in both steps."""
    captions = [f"{SHORT} {number}" for number in range(40)] + [LONG]
    recipe, said = run(table(*captions))
    assert [line[:11] for line in said] == ["note: step ", "warning: no"]
    assert all("ntp" not in line for line in runs.metrics(recipe))


def test_whole_data_says_nothing_and_shows_its_loss(table, run):
    recipe, said = run(table(*[f'["{SHORT} {number}", "{LONG} {number}"]' for number in range(9)]))
    assert [line for line in said if "ntp=" not in line] == []
    assert all(line["ntp"] > 0 for line in runs.metrics(recipe))


def test_of_two_sources_the_one_without_short_captions_is_named(table, run):
    short, long = table(*[f"{SHORT} {number}" for number in range(8)], name="short"), table(*[LONG] * 8, name="long")
    said = [line for line in run(short, long)[1] if line.startswith("warning")]
    assert said[0].startswith("warning: loss.ntp_weight 1 adds nothing") and "short.csv" in said[0]
    assert said[1].startswith("warning: the contrastive loss") and "long.csv" in said[1]
    assert "data.short_max_tokens=30" in said[1]


def test_figures_that_an_evaluation_has_no_captions_for_are_named(table, run):
    whole = table(*[f'["{SHORT} {number}", "{LONG} {number}"]' for number in range(9)])
    recipe, said = run(whole, evaluation=table(*[f"{SHORT} {n}" for n in range(6)], name="short"))
    assert all(part in said[0] for part in ("warning: data.evaluation", "ntp_loss", "none of the 6 records"))
    assert all("ntp_loss" not in line for line in runs.metrics(recipe, "evaluation"))


def test_recall_is_missed_too(table, run):
    whole = table(*[f'["{SHORT} {number}", "{LONG} {number}"]' for number in range(9)])
    _, said = run(whole, evaluation=table(*[LONG] * 6, name="long"))
    assert all(part in said[0] for part in ("warning: data.evaluation", "recall", "none of the 6 records"))
