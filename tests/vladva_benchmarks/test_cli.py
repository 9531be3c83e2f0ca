"""`vladva-benchmark`: commands by name, errors in a line."""

import importlib

import fresh
import pytest

from vladva_benchmarks.cli import COMMANDS, main


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert all(callable(importlib.import_module(f"vladva_benchmarks.{name}").main) for name in COMMANDS)


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["minature"]) == 2
    assert "did you mean miniature?" in capsys.readouterr().err


def test_an_error_is_a_line(capsys, tmp_path):
    assert main(["miniature", "--report-only", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} holds no finished run")


@pytest.mark.parametrize(
    ("command", "module", "extras"),
    [
        ("run", "webdataset", "benchmarks"),
        ("miniature", "accelerate", "train,benchmarks"),
        ("vectors", "sentence_transformers", "train,benchmarks,vectors"),
    ],
)
def test_a_missing_extra_is_named(command, module, extras):
    code = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from vladva_benchmarks.cli import main
sys.exit(main([{command!r}]))
"""
    done = fresh.run(code)
    expected = f'error: {command} needs {module}, which is not installed: pip install "vladva-clip[{extras}]"'
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (2, expected), done.stderr
