"""What is logged to TensorBoard and wandb, and that a run says so and goes on where it can't be."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.training import runs
from vladva_training.run.progress import Progress, open_progress
from vladva_training.run.state import RunState

TOTAL = 3
WANDB = """
class Run:
    def log(self, values, step):
        {on_log}
        print("logged", step, sorted(values))

    def finish(self):
        print("finished")

def init(**options):
    {on_init}
    return Run()
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that puts a package on Python's path, in front of all others, by its source; None for none."""

    def put(name: str, source: str | None) -> None:
        for module in [one for one in sys.modules if one.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        if source is None:
            monkeypatch.setitem(sys.modules, name, None)
            return
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "packages")

    return put


def opened(tmp_path: Path) -> Progress:
    """The progress of a run, after one event."""
    progress = open_progress(runs.small_recipe(tmp_path / "base", tmp_path / "run"), TOTAL, RunState(), True)
    progress.log("evaluation", 0, {"recall": 0.5, "keys": ["a"]})
    return progress


def said(progress: Progress, tmp_path: Path, capsys) -> str:
    """What the run says until its end; metrics.jsonl has what was logged, whatever else failed."""
    progress.close()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["event"], line["recall"]) for line in lines] == [("evaluation", 0.5)] * len(lines) and lines
    printed = capsys.readouterr().err.replace("\x1b[A", "")  # of bars that other tests left open
    return "".join(line for line in printed.splitlines(True) if "warning" in line)


def test_a_project_without_wandb_is_said_once(tmp_path, monkeypatch, install, capsys):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    install("wandb", None)
    text = said(opened(tmp_path), tmp_path, capsys)
    assert text.startswith("warning: WANDB_PROJECT is set, but wandb is not installed")
    assert "pip install wandb, or unset WANDB_PROJECT" in text and text.count("\n") == 1


@pytest.mark.parametrize("environment", [{}, {"WANDB_PROJECT": ""}, {"WANDB_PROJECT": "x", "WANDB_MODE": "disabled"}])
def test_who_does_not_ask_for_wandb_hears_nothing_of_it(tmp_path, monkeypatch, install, capsys, environment):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    install("wandb", None)
    assert said(opened(tmp_path), tmp_path, capsys) == ""


def test_a_folder_of_wandbs_logs_is_not_taken_for_wandb(tmp_path, monkeypatch, install, capsys):
    install("wandb", "")
    (tmp_path / "packages" / "wandb" / "__init__.py").unlink()
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert "wandb is not installed" in said(opened(tmp_path), tmp_path, capsys)


BROKEN = {
    "not logged in": WANDB.format(
        on_log="", on_init='raise RuntimeError("api_key not configured (no-tty)\\nlong story")'
    ),
    "no network": WANDB.format(on_log="", on_init='raise TimeoutError("no answer in 90 s")'),
    "of another time": "import somewhere_else",
    "no module of theirs": "",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_wandb_that_cannot_start_is_one_line_and_the_run_goes_on(tmp_path, monkeypatch, install, capsys, kind):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    install("wandb", BROKEN[kind])
    text = said(opened(tmp_path), tmp_path, capsys)
    assert text.startswith("warning: wandb can't start (") and text.count("\n") == 1
    assert "WANDB_MODE=offline, or unset WANDB_PROJECT" in text and "long story" not in text


def test_wandb_gets_the_figures(tmp_path, monkeypatch, install, capsys):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    install("wandb", WANDB.format(on_log="", on_init=""))
    opened(tmp_path).close()
    assert capsys.readouterr().out == "logged 0 ['evaluation/recall']\nfinished\n"


def test_a_wandb_that_breaks_off_is_said_once(tmp_path, monkeypatch, install, capsys):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    install("wandb", WANDB.format(on_log='raise ConnectionError("gone")', on_init=""))
    progress = opened(tmp_path)
    progress.log("evaluation", 1, {"recall": 0.5})
    text = said(progress, tmp_path, capsys)
    assert text.startswith("warning: wandb") and "(gone)" in text and text.count("\n") == 1


def test_a_broken_tensorboard_is_one_line_and_the_run_goes_on(tmp_path, monkeypatch, install, capsys):
    install("tensorboard", 'raise TypeError("Descriptors cannot be created directly.\\nlong story")')
    text = said(opened(tmp_path), tmp_path, capsys)
    assert text.startswith("warning: tensorboard can't start (TypeError: Descriptors cannot be created directly)")
    assert text.count("\n") == 1


def test_a_file_in_tensorboards_place_does_not_end_a_run(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("mine")
    assert "tensorboard can't start" in said(opened(tmp_path), tmp_path, capsys)
    assert (tmp_path / "run" / "tensorboard").read_text() == "mine"
