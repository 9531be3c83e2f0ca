"""The miniature: what its rows train, what a run writes, and the table made of finished runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vladva_benchmarks.drawn import miniature, miniature_report
from vladva_benchmarks.drawn.miniature import ROWS, Size, recipe_of, run_all, settings_of
from vladva_training.config import flat
from vladva_training.recipes import tiny

SMALL = Size(samples=32, batch_size=16, count=8, foil_count=8, caption_count=2)
COMMITTED = Path(__file__).parents[3] / "docs" / "miniature"
NAMES = [row.name for row in ROWS]


def row(name):
    return next(row for row in ROWS if row.name == name)


def test_rows_differ_from_the_tiny_recipe_in_their_parts_alone(tmp_path):
    plain = flat(tiny())
    for name, parts in {
        "soft-prompt": ("none", True, 0.0),
        "lora": ("lora", False, 0.0),
        "both": ("lora", True, 0.0),
        "both+ntp": ("lora", True, 2.0),
    }.items():
        made = flat(recipe_of(row(name), 3, SMALL, tmp_path))
        assert (made["model.train"], made["model.soft_prompt"], made["loss.ntp_weight"]) == parts
        assert made["loss.hard_negatives"] == made["loss.text_text_weight"] == 0
        assert made["run.steps"] * made["batch.size"] == SMALL.samples
        changed = {key.split(".")[0] for key in made if made[key] != plain[key]}
        assert changed <= {"name", "model", "data", "loss", "batch", "run", "output_dir", "seed", "resume"}
        assert made["optim.learning_rate"] == plain["optim.learning_rate"]
    assert {len(row(name).seeds) for name in ("both", "both+ntp", "clip")} == {3}


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*-*.json")), ids=lambda path: path.stem)
def test_the_committed_runs_are_those_of_todays_rows(path):
    """With twice the weight beside the sum of both directions, where they had one beside their mean."""
    run = json.loads(path.read_text())
    assert miniature._is_finished(path, row(run["row"]), run["seed"], Size())
    if "loss.ntp_weight" in run["settings"]:
        made = settings_of(recipe_of(row(run["row"]), run["seed"], Size(), COMMITTED))
        for key in ("loss.ntp_weight", "optim.max_grad_norm"):
            assert made[key] == 2 * run["settings"][key]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three kinds of row, at a size that says nothing."""
    folder = tmp_path_factory.mktemp("miniature")
    rows = [replace(row(name), seeds=(0,)) for name in ("hand-written", "both+ntp", "clip")]
    run_all(rows, SMALL, folder / "results", folder / "work")
    return folder, rows


def test_a_run_is_one_json_file_with_every_figure(finished):
    folder, rows = finished
    for one in rows:
        data = json.loads((folder / "results" / f"{one.name}-0.json").read_text())
        assert data["samples"] == (SMALL.samples if one.train else 0)
        for split in ("test", "heldout"):
            figures = data["figures"][split]
            groups = {"retrieval", "foils", "itt", "tot", "winoground", "zero_shot"}
            groups |= {f"evaluation_{name}" for name in ("foils", "itt", "tot", "winoground")}
            assert set(figures) == groups | ({"captions"} if one.train != "rival" else set())
            assert all(0 <= value <= 1 for group in groups for value in figures[group].values())
        assert str(folder) not in json.dumps(data)
    trained = json.loads((folder / "results" / "both+ntp-0.json").read_text())["figures"]["test"]
    untrained = json.loads((folder / "results" / "hand-written-0.json").read_text())["figures"]["test"]
    assert trained["captions"]["ntp_loss"] < untrained["captions"]["ntp_loss"]


def test_finished_runs_are_skipped_and_unequal_ones_refused(finished):
    folder, rows = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").glob("*.json")}
    run_all(rows, SMALL, folder / "results", folder / "work")
    assert {path: path.stat().st_mtime_ns for path in (folder / "results").glob("*.json")} == before
    with pytest.raises(ValueError, match="a run with size samples=32, now 48"):
        run_all(rows, replace(SMALL, samples=48), folder / "results", folder / "work")
    path = folder / "results" / "both+ntp-0.json"
    data = json.loads(path.read_text())
    data["settings"]["optim.learning_rate"] = 1.0
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="settings optim.learning_rate=1.0, now"):
        run_all(rows, SMALL, folder / "results", folder / "work")
    data["settings"]["optim.learning_rate"] = tiny().optim.learning_rate
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "how",
    [
        lambda data: data.pop("figures"),
        lambda data: data.update(figures=None),
        lambda data: data["figures"].pop("heldout"),
        lambda data: data["figures"]["test"].pop("itt"),
        lambda data: data["figures"]["test"]["foils"].update(swap_obj=float("nan")),
        lambda data: data["figures"]["test"]["foils"].update(swap_obj=None),
        lambda data: data["figures"]["test"]["retrieval"].clear(),
        lambda data: data.pop("size"),
        lambda data: data.update(training_seconds="long"),
        lambda data: data.clear(),
        None,
    ],
)
def test_a_run_without_its_figures_is_not_finished(finished, tmp_path, capsys, how):
    """It is made again, and refused where a report is all that is asked for."""
    path = tmp_path / "hand-written-0.json"
    data = json.loads((finished[0] / "results" / path.name).read_text())
    path.write_text(json.dumps(data))
    assert miniature._is_finished(path, row("hand-written"), 0, SMALL)
    if how:
        how(data)
    path.write_text(json.dumps(data) if how else "")
    assert not miniature._is_finished(path, row("hand-written"), 0, SMALL)
    assert f"{path}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"{path}"):
        miniature_report.write(tmp_path, NAMES)


def test_runs_under_other_names_and_of_other_sizes(finished, tmp_path):
    data = json.loads((finished[0] / "results" / "hand-written-0.json").read_text())
    path = tmp_path / "lora-0.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="lora-0.json holds the run hand-written-0"):
        miniature_report.write(tmp_path, NAMES)
    path.write_text(json.dumps({**data, "row": "lora"}))
    (tmp_path / "hand-written-0.json").write_text(json.dumps({**data, "size": {**data["size"], "count": 9}}))
    with pytest.raises(ValueError, match="hand-written-0.json and .*lora-0.json .*sizes"):
        miniature_report.write(tmp_path, NAMES)


def test_the_report_keeps_what_stands_around_the_table(finished, capsys):
    folder, _ = finished
    results = folder / "results"
    report = results / miniature_report.REPORT
    report.write_text(f"# Title\n\nbefore\n{miniature_report.START}\nold\n{miniature_report.END}\nafter\n")
    assert miniature.main(["--report-only", "--results", str(results)]) == 0
    text = report.read_text()
    assert text.startswith("# Title\n\nbefore\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("\n| hand-written |") == 5  # two splits, each with its foils, and the durations
    assert (results / miniature_report.PLOT).read_bytes().startswith(b"\x89PNG")
    report.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        miniature_report.write(results, NAMES)


def test_cells_are_percentages_with_half_the_range():
    assert miniature_report._cell([0.5]) == "50.0"
    assert miniature_report._cell([0.5, 0.6, 0.7]) == "60.0 ± 10.0"
    assert miniature_report._cell([None]) == "-"


def test_no_finished_run_is_said(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run"):
        miniature_report.write(tmp_path, NAMES)
