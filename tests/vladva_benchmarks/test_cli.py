"""`vladva-benchmark`: commands by name, errors in a line."""

import importlib

import fresh

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


MISSING = {"run": "webdataset", "miniature": "accelerate", "vectors": "sentence_transformers"}
EXTRAS = {"run": "benchmarks", "miniature": "train,benchmarks", "vectors": "train,benchmarks,vectors"}


def test_a_missing_extra_is_named():
    """One interpreter for all: a command that can't be imported is tried anew the next time."""
    done = fresh.run(f"""
import sys
hidden = ""
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == hidden:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from vladva_benchmarks.cli import main
for command, hidden in {MISSING!r}.items():
    for name in [name for name in sys.modules if name.partition(".")[0] == hidden]:
        del sys.modules[name]
    assert main([command]) == 2
""")
    assert done.returncode == 0, done.stderr
    expected = [
        f'error: {command} needs {module}, which is not installed: pip install "vladva-clip[{EXTRAS[command]}]"'
        for command, module in MISSING.items()
    ]
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == expected, done.stderr
