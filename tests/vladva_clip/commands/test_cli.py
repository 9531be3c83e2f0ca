"""`vladva` itself: help, versions, usage errors, exit statuses, completion, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest

from vladva_clip import cli
from vladva_clip.commands import program

COMMANDS = [command.name for section in program.SECTIONS.values() for command in section]
PROGRAM = [sys.executable, "-m", "vladva_clip.cli"]


def test_without_words_it_prints_its_help(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS) and "Examples:" in said and "Exit status: 0" in said


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_each_command_has_help_that_fits_a_terminal(name, option, capsys):
    assert cli.main([name, option]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: vladva {name} ") and "None" not in said
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_examples(name, capsys):
    cli.main([name, "--help"])
    assert f"  vladva {name}" in capsys.readouterr().out.split("Examples:")[1]


@pytest.mark.parametrize("name", ["classify", "embed", "search", "similarity", "caption"])
def test_commands_that_load_a_model_share_its_options(name, capsys):
    cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert all(option in said for option in ("--model", "--pretrained", "--profile", "--precision", "--device"))
    assert "--json" in said and "  vladva " in said.split("Examples:")[1]


def test_the_version_is_the_packages(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"vladva {metadata.version('vladva-clip')}\n"


WRONG = {
    "clasify": "no command 'clasify'; did you mean classify",
    "classify a.png": "--labels",
    "classify": "IMAGE",
    "classify a.png --labels red --top 0": "whole number of at least 1",
    "classify a.png --labels red --template red": "0 places for a label",
    "classify a.png --labels red --lable x": "--labels",
    "classify a.png --labels red --precision float16": "write fp16",
    "export a b --dtype float16": "--precision fp16",
    "embed --out x.npz": "nothing to embed",
    "embed a.png": "--out",
    "similarity": "nothing to compare",
    "similarity --text a": "one text and nothing",
    "embed --text= --out x.npz": "the text is empty",
    "search x.npz": "QUERY",
    "search x.npz a --kind pictures": "image",
}


def test_a_wrong_option_is_not_answered_with_one_that_is_refused(capsys):
    assert cli.main(["classify", "a.png", "--type", "x"]) == 2
    assert "--dtype" not in capsys.readouterr().err


def test_a_wrong_text_file_is_reported_before_torch_is_imported(tmp_path):
    words = ["classify", str(tmp_path / "a.png"), "--labels-file", str(tmp_path / "none.txt")]
    code = f"import sys; from vladva_clip import cli; cli.main({words}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "none.txt" in done.stderr and done.stdout == "False\n"


@pytest.mark.parametrize("words", WRONG)
def test_wrong_use_is_one_line_that_names_the_way_to_help(words, capsys):
    assert cli.main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("vladva: ") and said.count("\n") == 1
    assert WRONG[words] in said and "--help)" in said


def test_the_help_needs_no_torch():
    code = "import sys; from vladva_clip import cli; cli.main(['classify', '-h']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(f"{' '.join(PROGRAM)} models | head -1", shell=True, capture_output=True, text=True)
    assert not done.stderr and done.stdout.count("\n") == 1


def test_names_of_models_complete_in_a_shell():
    words = {"_VLADVA_COMPLETE": "bash_complete", "COMP_WORDS": "vladva classify --model vladva-t", "COMP_CWORD": "3"}
    code = "import sys; from vladva_clip.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True)
    assert done.stdout == "plain,vladva-tiny\n"


@pytest.fixture(scope="module")
def many(drawn, tmp_path_factory):
    """A folder with pictures for a minute of captioning."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(100):
        for path in drawn.iterdir():
            os.link(path, folder / f"{number}-{path.name}")
    return folder


@pytest.mark.parametrize("seconds", [0.4, 2, pytest.param(8, marks=pytest.mark.slow)])
def test_ctrl_c_ends_a_command_with_one_line_whenever_it_comes(many, seconds):
    """While torch is imported, while the model loads, while it captions; earlier, Python itself still starts."""
    words = [*PROGRAM, "caption", str(many), "--model", "vladva-tiny", "--device", "cpu"]
    free = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}  # a job may ignore it
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **free)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "vladva: interrupted")


def test_the_quick_start_says_its_steps_to_who_waits_at_a_terminal(tmp_path, monkeypatch, capsys):
    """Only there; elsewhere its report is all."""
    from vladva_clip.commands import output

    output.step("drawing")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    output.step("drawing")
    assert "drawing ..." in capsys.readouterr().err
