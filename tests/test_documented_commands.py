"""Every command that the README, the docs and the model card name is run, as far as that is cheap.

A command runs in this process through the entry point that pyproject.toml gives it, in a folder that holds the paths
the docs use. `WAYS` says what is added to make a command cheap, and which ones stop behind their real parser and why.
An unknown command, option, recipe, key or suite fails. The slow tests run the commands to their end, at small sizes.
"""

import argparse
import ast
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from tests.support.documented import PAGES, ROOT, make_place

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROGRAMS = PROJECT["scripts"]

PLACEHOLDERS = {  # what a page leaves to its reader
    "RECIPE": "debug",
    "SETTINGS": "batch.micro_size=1",
    "RESULTS": "results",
    "wds:/data/cc3m/{00000..00331}.tar,jsonl:/data/own.jsonl": "scenes:train:8,scenes:test:8",
    "wds:data/openimages,wds:data/cc3m,wds:data/sharegpt4v": "scenes:train:8,scenes:test:8,scenes:heldout:8",
    "output_dir=/shared/": "output_dir=shared/",
    "caption ...": "caption scenes:train:8 --output captions",
    "scenes ...": "scenes",
}
FOREIGN = {
    "aws",
    "cd",
    "curl",
    "done",
    "echo",
    "for",
    "gunzip",
    "hf",
    "img2dataset",
    "mkdir",
    "sed",
    "tar",
    "unzip",
    "vllm",
}
FOREIGN |= {"docker", "uvicorn", "echo", "export", "source", '"messages":', "ruff", "python"}


@dataclass(frozen=True)
class Way:
    """How a documented command is run.

    Attributes:
        added: options that make it cheap.
        parsed: stop the real `main` as soon as its real parser has taken the words.
        status: the exit status that is right here.
        said: what stands on stderr or stdout then.
        whole: options with which the slow tests run it to its end; None for commands that run whole anyway, or nowhere.
        why: the reason for stopping early.
    """

    added: tuple[str, ...] = ()
    parsed: bool = False
    status: int = 0
    said: str = ""
    whole: tuple[str, ...] | None = None
    why: str = ""


INDENTED = r"(?<=\n)\n(?:    .*\n)+"  # behind an empty line
FEW_SCENES = ("--count", "8", "--foil-count", "4", "--caption-count", "4")
MISSING = Way(status=2, said="data", why="needs the data sets: it looks for all of them and lists what is missing")
WAYS = {  # beginning of a command -> how it is run; the longest that fits counts
    "vladva quickstart": Way(parsed=True, whole=(), why="takes half a minute"),
    "vladva": Way(),
    "vladva models": Way(),
    "vladva classify": Way(parsed=True, why="needs a download; commands/test_classify.py runs it"),
    "vladva embed": Way(added=("--overwrite",)),
    "vladva search": Way(),
    "vladva export": Way(parsed=True, whole=("--overwrite",), why="writes and checks a whole model"),
    "vladva card": Way(added=("--overwrite",)),
    "vladva push": Way(parsed=True, why="needs the Hub; hub/test_push.py pushes to a server of its own"),
    "vladva pull": Way(parsed=True, why="needs the Hub; hub/test_pull_failures.py pulls from a server of its own"),
    "vladva-train": Way(added=("--dry-run",)),
    "vladva-train debug": Way(added=("--dry-run",), whole=("run.steps=2", "data.num_workers=0")),
    "vladva-train caption": Way(parsed=True, why="needs models of gigabytes; captioning/test_command.py has tiny ones"),
    "vladva-train pretrain-tiny": Way(parsed=True, why="takes minutes; tiny/test_pretrain.py trains a few steps"),
    "vladva-train pretrain-tiny-vision": Way(parsed=True, why="takes minutes; tiny/test_vision.py trains a few steps"),
    "vladva-train evaluate-tiny": Way(parsed=True, whole=("--scenes", "4"), why="takes half a minute"),
    "vladva-benchmark run": MISSING,
    "vladva-benchmark run scenes": Way(
        parsed=True, whole=("--scene-pictures", "8", "--num-workers", "0"), why="takes half a minute"
    ),
    "vladva-benchmark scene-figures": Way(parsed=True, whole=FEW_SCENES, why="takes half a minute"),
    "vladva-benchmark miniature": Way(parsed=True, why="trains for hours; drawn/test_miniature.py trains a few steps"),
    "vladva-benchmark training-step": Way(
        parsed=True, whole=("--shape", "tiny", "--device", "cpu", "--batch-size", "6"), why="times a model"
    ),
    "vladva-benchmark vectors": Way(parsed=True, whole=("--scenes", "8"), why="times a model"),
    "vladva-benchmark throughput": Way(added=("--batch-size", "2", "--batches", "1", "--repeats", "1")),
    "vladva-benchmark throughput --model smolvlm-256m": Way(
        parsed=True,
        whole=("--batch-size", "1", "--batches", "1", "--repeats", "1"),
        why="draws 256 million weights; speed/test_throughput.py draws few",
    ),
    "vladva-benchmark throughput --model embeddinggemma-2": Way(
        parsed=True, why="takes seven seconds a picture; speed/test_plain_forward.py has a tiny one"
    ),
    "vladva-benchmark bulk": Way(parsed=True, whole=("--counts", "2"), why="embeds 111,000 files"),
    "vladva-benchmark zero-shot": Way(
        parsed=True, whole=("--classes", "2", "--templates", "2"), why="encodes 80,000 texts"
    ),
    "vladva-benchmark world-sheet": Way(),
    "vladva-benchmark report": Way(),
    "clip_benchmark": Way(parsed=True, why="is not ours; integrations/test_clip_benchmark.py runs it"),
}


def blocks(text: str) -> list[str]:
    """The lines of a page's shell blocks and indented blocks, continued lines joined."""
    fenced = re.findall(r"^```bash\n(.*?)^```", text, re.S | re.M)
    rest = _without_fences(text)
    indented = ["".join(line[4:] for line in block.splitlines(True)[1:]) for block in re.findall(INDENTED, rest)]
    joined = [re.sub(r"\\\n\s*", " ", block) for block in fenced + indented]
    return [line for block in joined for line in _whole_lines(block)]


def _without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```", "", re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S), flags=re.S | re.M)


def _whole_lines(block: str) -> list[str]:
    """Lines of a block; those within an open quotation belong together."""
    lines, open_line = [], ""
    for line in block.splitlines():
        open_line += f"{line}\n"
        try:
            shlex.split(open_line, comments=True)
        except ValueError:  # no closing quotation yet
            continue
        lines.append(open_line)
        open_line = ""
    assert not open_line, f"a quotation is never closed: {open_line}"
    return lines


def inline(text: str) -> list[str]:
    """Inline code that is a command: a program of ours, or Python, make, pytest or clip_benchmark, with a word more."""
    found = [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", _without_fences(text))]
    begins = r"(?:\w+=\S+ |taskset -c 0 )*(?:vladva[\w-]*|python|torchrun|make|pytest|clip_benchmark) \S"
    return [code for code in found if re.match(begins, code)]


def split(line: str) -> list[list[str]]:
    """The commands of a line as words, without comments, environment, `taskset` and the folder of the program."""
    line = re.sub(r"\[(--[^\]]*)\]", r"\1", line)  # an option that may be left out
    line = line.replace("[@revision]", "@revision")
    for placeholder, value in PLACEHOLDERS.items():
        line = line.replace(placeholder, value)
    commands = []
    for part in re.split(r" && ", line):
        words = shlex.split(part, comments=True)
        while words and (re.fullmatch(r"[A-Z_]+=\S*", words[0]) or words[0] == "taskset"):
            words = words[3:] if words[0] == "taskset" else words[1:]
        if words and words != ["..."]:
            commands.append([words[0].removeprefix(".venv/bin/"), *(word for word in words[1:] if word != "...")])
    return commands


def documented() -> dict[str, list[str]]:
    """Command, as it is written -> its words; each once."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for line in blocks(page.read_text()) + inline(page.read_text()):
            for words in split(line):
                found.setdefault(shlex.join(_as_program(words)), _as_program(words))
    return found


def _as_program(words: list[str]) -> list[str]:
    """`torchrun ... -m MODULE` and `python -m MODULE` of ours as the program whose entry MODULE is."""
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        options = get_args_parser().parse_args(words[1:])
        assert options.module, words
        words = ["python", "-m", options.training_script, *options.training_script_args]
    if words[0] == "python3":
        words = ["python", *words[1:]]
    if words[:2] == ["python", "-m"] and words[2].startswith("vladva"):
        return [next(name for name, entry in PROGRAMS.items() if entry == f"{words[2]}:main"), *words[3:]]
    return words


COMMANDS = documented()
OURS = {text: words for text, words in COMMANDS.items() if words[0].startswith(("vladva", "clip_benchmark"))}
REST = {text: words for text, words in COMMANDS.items() if text not in OURS and words[0] not in FOREIGN - {"python"}}


def way_of(text: str) -> Way:
    fitting = [start for start in WAYS if text == start or text.startswith(f"{start} ")]
    return WAYS[max(fitting, key=len)]


class ParsedError(Exception):
    """The real parser has taken the words."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


def run(words: list[str]) -> int:
    """Run a program in this process by its entry point; returns the exit status."""
    module, _, function = PROGRAMS.get(words[0], "clip_benchmark.cli:main").partition(":")
    sys.argv = words
    try:
        main = getattr(importlib.import_module(module), function)
        return (main(words[1:]) if words[0] in PROGRAMS else main()) or 0
    except SystemExit as end:
        return end.code or 0


@pytest.fixture
def here(place, monkeypatch) -> Path:
    """The folder with the docs' paths, as the working directory."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", sys.argv)
    return place


def stop_behind_the_parser(monkeypatch) -> None:
    """Commands of argparse end when the words are parsed; those of click before the innermost command is called."""
    real, real_invoke = argparse.ArgumentParser.parse_args, click.Command.invoke

    def parse_args(parser, *arguments, **options):
        real(parser, *arguments, **options)
        raise ParsedError

    def invoke(command, context):
        if isinstance(command, click.Group):
            return real_invoke(command, context)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(click.Command, "invoke", invoke)


def is_a_name(words: list[str]) -> bool:
    """Whether only a program or one of its commands is named, as in a sentence about it."""
    from vladva_training.cli import COMMANDS as BESIDE_RECIPES

    return len(words) < 3 and (words[0] != "vladva-train" or words[1:] == [] or words[1] in BESIDE_RECIPES)


def redirected(words: list[str]) -> list[str]:
    """A run's words with its output_dir below a folder of its own, where nothing lies."""
    given = next((word for word in words if word.startswith("output_dir=")), "output_dir=run")
    return [*(word for word in words if word != given), given.replace("=", "=out/")]


def marked(text: str) -> object:
    """A command as a parameter; plans, which take seconds each, are for test-wide."""
    return pytest.param(text, marks=[pytest.mark.wide] if way_of(text).added == ("--dry-run",) else [])


@pytest.mark.parametrize("text", [marked(text) for text in OURS])
def test_a_documented_command_runs(text, here, monkeypatch, capsys):
    words, way = OURS[text], way_of(text)
    assert words[0] in {*PROGRAMS, "clip_benchmark"}, f"{words[0]} is not a program of ours"
    if is_a_name(words):
        words, way = [*words, "--help"], Way()
    elif {"-h", "--help"} & {*words}:
        way = Way()
    elif way.parsed:
        stop_behind_the_parser(monkeypatch)
        with pytest.raises(ParsedError):
            run(words)
        return
    elif words[0] == "vladva-train":
        words = redirected(words)
    status, said = run([*words, *(option for option in way.added if option not in words)]), "".join(capsys.readouterr())
    assert status == way.status, said
    assert way.said in said


WHOLE = [
    text
    for text, words in OURS.items()
    if (whole := way_of(text).whole) is not None and "--dry-run" not in words and (whole == () or not is_a_name(words))
]


@pytest.mark.slow
@pytest.mark.parametrize("text", WHOLE)
def test_a_documented_command_runs_to_its_end(text, here, capsys):
    words = redirected(OURS[text]) if OURS[text][0] == "vladva-train" and "debug" in OURS[text] else OURS[text]
    assert run([*words, *way_of(text).whole]) == 0, "".join(capsys.readouterr())


@pytest.mark.parametrize("text", REST)
def test_other_documented_commands_name_what_is_there(text):
    """Files of `python` and `pytest`, imports of `python -c`, targets of make, extras of pip."""
    program, *words = REST[text]
    match program:
        case "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)
        case "pytest":
            assert all((ROOT / word).exists() for word in words if "/" in word)
        case "pip":
            extras = re.findall(r"\[([\w,]+)\]", " ".join(words))
            assert set(",".join(extras).split(",")) - {""} <= set(PROJECT["optional-dependencies"])
        case "python" if words[0] == "-m":
            assert importlib.util.find_spec(words[1]) is not None
        case "python" if words[0] == "-c":
            imports = [node for node in ast.parse(words[1]).body if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), text, "exec"), {})
        case "python":
            assert words[0].startswith("-") or (ROOT / words[0]).is_file()
        case _:
            pytest.fail(f"{program!r} is not known: correct the page, or add the program to FOREIGN")


SETTING = re.compile(r"`(?:\.\.\. )?((?:model|data|loss|optim|batch|run)\.\w+=[^`\s]+)`")
SETTINGS = sorted({setting for page in PAGES for setting in SETTING.findall(page.read_text())})
KEY = re.compile(r"`((?:data|loss|optim|batch|run)\.(?!py`|md`)\w+)`")
KEYS = sorted({key for page in PAGES for key in KEY.findall(page.read_text())})


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_documented_setting_is_taken(setting):
    from vladva_training import overrides, recipes

    key, _, value = setting.replace("=K", "=2").partition("=")
    recipe = recipes.get("llava15_7b")
    assert overrides.parse(key, value, overrides.key_types(recipe)[key]) is not None or value == "none"


def test_documented_keys_exist():
    from vladva_training import overrides, recipes

    assert not set(KEYS) - set(overrides.key_types(recipes.get("llava15_7b")))


def test_all_pages_are_read():
    """The test can't pass because it finds nothing: it finds every program, and many commands and keys."""
    assert {words[0] for words in OURS.values()} == {*PROGRAMS, "clip_benchmark"}
    assert len(OURS) > 50 and len(SETTINGS) > 10 and len(KEYS) > 20


@pytest.mark.parametrize("program", ["argparse", "click"])
def test_a_program_stops_behind_its_parser(program, monkeypatch):
    """With right words its command is not run; wrong ones end it as always."""

    @click.group()
    def ours():
        pass

    @ours.command()
    @click.option("--steps", type=int)
    def train(steps):
        pytest.fail("the command was run")

    def parse(words):
        parser = argparse.ArgumentParser()
        parser.add_argument("command", choices=["train"])
        parser.add_argument("--steps", type=int)
        parser.parse_args(words)
        pytest.fail("the command was run")

    stop_behind_the_parser(monkeypatch)
    main = {"argparse": parse, "click": ours.main}[program]
    with pytest.raises(ParsedError):
        main(["train", "--steps", "2"])
    for wrong in (["trian"], ["train", "--steps", "x"], ["train", "--step-count", "2"]):
        with pytest.raises(SystemExit) as end:
            main(wrong)
        assert end.value.code == 2


WRONG = [
    "vladva exprot DIR OUT",
    "vladva-train no_recipe --dry-run",
    "vladva-train debug optim.no_key=1 --dry-run",
    "vladva-benchmark report results --no-such-flag",
    "vladva-benchmark no-suite --help",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_command_is_noticed(text, here):
    assert inline(f"Run `{text}`.") == [text] and run(text.split()) == 2


def test_a_wrong_program_is_noticed():
    assert inline("`vladva-trian debug` and `vladva-tiny`") == ["vladva-trian debug"]
    assert split("A=1 taskset -c 0 torchrun -m x && .venv/bin/vladva models  # all") == [
        ["torchrun", "-m", "x"],
        ["vladva", "models"],
    ]
