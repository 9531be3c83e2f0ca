"""`vladva-train`: exit status, stdout and stderr."""

import os
import signal
import subprocess
import sys

import pytest

from vladva_training import cli
from vladva_training.cli import KEYS, main
from vladva_training.config import flat
from vladva_training.processes.errors import RunError
from vladva_training.recipes import RECIPES, debug


def test_help_lists_the_recipes_and_the_most_important_keys(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0
    for name, function in RECIPES.items():
        assert f"  {name} " in out and function.__doc__.partition("\n")[0] in out
    assert all(key in out and key in flat(debug()) for key in KEYS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tinny"], "unknown recipe 'tinny'; did you mean tiny"),
        (["debug", "lr=1"], "unknown key 'lr'; did you mean optim.learning_rate?"),
        (["debug", "--batch.size=x"], "batch.size is 'x', expected a whole number"),
        (["debug", "--dry-runn"], "'--dry-runn' "),
        (["debug", "drop_last=true", "--dry-run"], "drop_last is refused"),
    ],
)
def test_user_errors_are_one_line_and_status_2(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1


def test_dry_run_prints_the_plan_and_writes_nothing(capsys, tmp_path):
    assert main(["debug", f"output_dir={tmp_path}/run", "--dry-run", "seed=5"]) == 0
    out = capsys.readouterr().out
    assert "logit_scale" in out and "seed" in out
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_is_one_line_and_status_1(monkeypatch, capsys):
    def failing(name):
        raise RunError("the disk is full;\n the last checkpoint is intact")

    monkeypatch.setattr("vladva_training.recipes.get", failing)
    assert main(["debug"]) == 1
    assert capsys.readouterr().err == "error: the disk is full; the last checkpoint is intact\n"


def test_one_of_many_processes_prints_the_plan(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["debug", "--dry-run"]) == 0 and capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert main(["debug", "--dry-run"]) == 0 and "2 processes" in capsys.readouterr().out
    assert main(["debug", "--dry-run", "batch.size=15"]) == 2 and "2 processes" in capsys.readouterr().err


def test_ctrl_c_is_130(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("vladva_training.recipes.get", interrupted)
    assert main(["debug"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_it_runs_as_a_module_and_starts_without_torch():
    code = "import sys, vladva_training.cli; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "vladva_training.cli", "debug", "batch.size=1"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: batch.size is 1")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_dry_run_into_a_closed_pipe_ends_as_usual():
    """`vladva-train debug --dry-run | head -1`: no traceback, and Python's flush at exit does not change the status."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "vladva_training.cli", "debug", "--dry-run"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr


def test_a_signal_before_the_recipe_is_read_ends_with_its_status(monkeypatch):
    monkeypatch.setattr(cli, "_train", lambda words: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as left:
        main(["debug"])
    assert left.value.code == 143
