"""`vladva-benchmark`: commands by name, errors in a line."""

import importlib

from vladva_benchmarks.cli import COMMANDS, main


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert all(callable(importlib.import_module(f"vladva_benchmarks.{module}").main) for module, _ in COMMANDS.values())


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["minature"]) == 2
    assert "did you mean miniature?" in capsys.readouterr().err


def test_an_error_is_a_line(capsys, tmp_path):
    assert main(["miniature", "--report-only", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} holds no finished run")
