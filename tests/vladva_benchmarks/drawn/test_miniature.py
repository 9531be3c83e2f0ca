"""The miniature: what a run writes, and the tables made of finished runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vladva_benchmarks.drawn import miniature, miniature_report, miniature_runs
from vladva_benchmarks.drawn.miniature import Bench, run_all, wanted_choices, wanted_runs
from vladva_benchmarks.drawn.miniature_rows import CHOSEN, ROWS, Size
from vladva_training.recipes import tiny

SMALL = Size(samples=48, batch_size=16, count=8, foil_count=8, caption_count=2)
COMMITTED = Path(__file__).parents[3] / "docs" / "miniature"
NAMES = [row.name for row in ROWS]
TRAINED = "both+ntp"


def row(name):
    return next(row for row in ROWS if row.name == name)


def is_finished(path, name, size=SMALL):
    return miniature._is_finished(path, row(name), 0, Bench(size, path.parent))


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*-*.json")), ids=lambda path: path.stem)
def test_the_committed_runs_are_those_of_todays_rows(path):
    run = json.loads(path.read_text())
    assert miniature._is_finished(path, row(run["row"]), run["seed"], Bench(Size(), path.parent))


def test_the_settings_are_the_best_of_the_committed_choices():
    found = [run for run in miniature_runs.read_choices(COMMITTED) if run["row"] == "both"]
    best = max(found, key=miniature_report.merit, default=None)
    if best is not None:
        recipe = miniature.recipe_of(row("both"), 0, Size(), COMMITTED)
        assert best["settings"]["data.train"] == list(recipe.data.train)
        assert best["settings"]["optim.learning_rate"] == CHOSEN.learning_rate


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three kinds of row, at a size that says nothing."""
    folder = tmp_path_factory.mktemp("miniature")
    rows = [replace(row(name), seeds=(0,)) for name in ("hand-written", TRAINED, "clip")]
    wanted = wanted_runs(rows, Bench(SMALL, folder / "work"), folder / "results")
    run_all(wanted, folder / "results")
    return folder, rows, wanted


@pytest.mark.wide
def test_a_run_is_one_json_file_with_every_figure(finished):
    folder, rows, _ = finished
    for one in rows:
        data = json.loads((folder / "results" / f"{one.slug}-0.json").read_text())
        assert data["samples"] == (SMALL.samples if one.train else 0)
        assert set(data["figures"]) == {"test varied", "test unseen"}
        for figures in data["figures"].values():
            groups = {"retrieval", "foils", "itt", "tot", "zero_shot", "zero_shot_single", "size"}
            groups |= {f"evaluation_{name}" for name in ("foils", "itt", "tot")}
            groups |= {"winoground_colors", "winoground_places", "winoground_axis"}
            assert set(figures) == groups | ({"captions"} if one.train != "rival" else set())
            assert all(0 <= value <= 1 for group in groups for value in figures[group].values())
        assert str(folder) not in json.dumps(data)
        assert ("base" in data["settings"]) == (one.train != "rival")
    trained, untrained = (
        json.loads((folder / "results" / f"{name}-0.json").read_text())["figures"]["test varied"]
        for name in (TRAINED, "hand-written")
    )
    assert trained["captions"]["ntp_loss"] < untrained["captions"]["ntp_loss"]


@pytest.mark.wide
def test_finished_runs_are_skipped_and_unequal_ones_refused(finished):
    folder, rows, wanted = finished
    results = folder / "results"
    before = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    run_all(wanted, results)
    assert {path: path.stat().st_mtime_ns for path in results.glob("*.json")} == before
    with pytest.raises(ValueError, match="a run with size samples=48, now 96"):
        run_all(wanted_runs(rows, Bench(replace(SMALL, samples=96), folder / "work"), results), results)
    path = results / f"{TRAINED}-0.json"
    stored = path.read_text()
    for key, value in (("optim.learning_rate", 1.0), ("base", "sha256:0")):
        data = json.loads(stored)
        data["settings"][key] = value
        path.write_text(json.dumps(data))
        with pytest.raises(ValueError, match=f"settings {key}={value!r}, now"):
            run_all(wanted, results)
    path.write_text(stored)
    assert json.loads(stored)["settings"]["optim.max_grad_norm"] == tiny().optim.max_grad_norm


@pytest.mark.wide
def test_choices_are_measured_on_the_validation_split_alone(tmp_path, capsys):
    bench = Bench(SMALL, tmp_path / "work")
    wanted = wanted_choices([row("both")], bench, tmp_path)
    assert len(wanted) == len({(bench.choice.order, bench.choice.learning_rate) for _, _, bench in wanted.values()})
    (path, first), *_, (other, last) = wanted.items()
    run_all({path: first}, tmp_path)
    run_all({path: first}, tmp_path)
    assert capsys.readouterr().err.count("is finished") == 1
    run = json.loads(path.read_text())
    assert set(run["figures"]) == {"validation varied"}
    run["settings"] = json.loads(json.dumps(miniature.settings_of(*last)))
    for group in ("foils", "evaluation_foils"):
        run["figures"]["validation varied"][group] = dict.fromkeys(run["figures"]["validation varied"][group], 1.0)
    other.write_text(json.dumps(run))
    table = miniature_report.choices_table(miniature_runs.read_choices(tmp_path)).splitlines()
    assert len(table) == 4 and f"| {last[2].choice.learning_rate:g} | 100.0 | " in table[2]
    assert f"| {first[2].choice.learning_rate:g} | " in table[3]


def test_a_run_of_another_choice_has_another_folder(tmp_path):
    """Whichever choice is the chosen one when it is made."""
    choices = [bench for _, _, bench in wanted_choices([row("both")], Bench(SMALL, tmp_path), tmp_path).values()]
    places = {miniature._place(row("both"), 0, bench) for bench in choices}
    assert len(places) == len(choices) and all(bench.choice.slug in str(places) for bench in choices)


@pytest.mark.parametrize(
    "how",
    [
        lambda data: data.pop("figures"),
        lambda data: data.update(figures=None),
        lambda data: data["figures"].pop("test unseen"),
        lambda data: data["figures"]["test varied"].pop("size"),
        lambda data: data["figures"]["test varied"]["foils"].update(swap_obj=float("nan")),
        lambda data: data["figures"]["test varied"]["foils"].update(swap_obj=None),
        lambda data: data["figures"]["test varied"]["retrieval"].clear(),
        lambda data: data.pop("size"),
        lambda data: data.update(training_seconds="long"),
        lambda data: data.clear(),
        None,
    ],
)
@pytest.mark.wide
def test_a_run_without_its_figures_is_not_finished(finished, tmp_path, capsys, how):
    """It is made again, and refused where a report is all that is asked for."""
    path = tmp_path / "hand-written-0.json"
    data = json.loads((finished[0] / "results" / path.name).read_text())
    path.write_text(json.dumps(data))
    assert is_finished(path, "hand-written")
    if how:
        how(data)
    path.write_text(json.dumps(data) if how else "")
    assert not is_finished(path, "hand-written")
    assert f"{path}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"{path}"):
        miniature_report.write(tmp_path, NAMES)


@pytest.mark.wide
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


@pytest.mark.wide
def test_the_report_keeps_what_stands_around_the_table(finished, capsys):
    folder, *_ = finished
    results = folder / "results"
    report = results / miniature_report.REPORT
    report.write_text(f"# Title\n\nbefore\n{miniature_report.START}\nold\n{miniature_report.END}\nafter\n")
    assert miniature.main(["--report-only", "--results", str(results)]) == 0
    text = report.read_text()
    assert text.startswith("# Title\n\nbefore\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("\n| hand-written |") == 2 * 10 + 1  # ten tables of each world, and the durations
    assert "| swap_obj |" in text and "relation_of_four" in text and "axis: group" in text
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
