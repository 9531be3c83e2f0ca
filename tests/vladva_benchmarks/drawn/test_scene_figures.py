"""The figures of one model on drawn scenes, by command."""

import json

import pytest

from vladva_benchmarks.cli import main
from vladva_benchmarks.drawn.scene_figures import worlds_of
from vladva_benchmarks.drawn.scene_tasks import World
from vladva_clip.hub.card_results import read_results

SMALL = ["--pretrained", "base", "--count", "8", "--foil-count", "4", "--caption-count", "2"]


@pytest.mark.wide
def test_the_command_prints_and_writes_every_figure(tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert main(["scene_figures", *SMALL, "--output", str(path)]) == 0
    printed, written = capsys.readouterr().out, json.loads(path.read_text())
    assert set(written["figures"]) == {"test", "heldout", "test varied", "test unseen"}
    assert written["pretrained"] == "base"
    for name, value in written["figures"]["test unseen"]["foils"].items():
        (line,) = [line for line in printed.splitlines() if line.startswith(f"foils {name} ")]
        assert line.endswith(f" {value:.3f}")
    (line,) = [line for line in printed.splitlines() if line.startswith("winoground group ")]
    assert line.split()[-2:] == ["-", "-"]
    assert {figure.task for figure in read_results(path)} >= {"retrieval", "foils", "winoground", "captions"}
    assert [one.name for one in tmp_path.iterdir()] == ["figures.json"]


def test_the_worlds_of_a_choice_of_settings(tmp_path):
    path = tmp_path / "figures.json"
    assert main(["scene_figures", *SMALL, "--styles", "varied", "--splits", "validation", "--output", str(path)]) == 0
    (figures,) = json.loads(path.read_text())["figures"].values()
    assert "captions" in figures
    less = ["--styles", "varied", "--splits", "validation", "--caption-count", "0"]
    assert main(["scene_figures", *SMALL, *less, "--output", str(path)]) == 0
    del figures["captions"]
    assert json.loads(path.read_text())["figures"] == {"validation varied": figures}
    assert worlds_of(["classic"]) == [World("test"), World("heldout")]
    assert worlds_of(["varied", "unseen"], ["heldout"]) == [World("heldout", "varied"), World("heldout", "unseen")]


@pytest.mark.parametrize(("change", "said"), [(["--count", "12"], "whole families"), (["--model", "tiny"], "tiny")])
def test_what_is_no_model_or_no_gallery(change, said, capsys):
    assert main(["scene_figures", *SMALL, *change]) == 2
    assert said in capsys.readouterr().err
