"""Without a package of an extra every command says in one line which extra brings it; help needs none of them."""

import json
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support import fresh
from vladva_clip.interface import extras

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = ("train", "qlora", "ray", "vectors", "benchmarks")  # the others are for tests

HELP = [
    *("vladva", "vladva quickstart", "vladva models", "vladva export", "vladva card", "vladva push", "vladva pull"),
    *("vladva-train", "vladva-train caption", "vladva-benchmark"),
    *(f"vladva-benchmark {name}" for name in ("run", "scene-figures", "miniature", "training-step", "vectors")),
    *(f"vladva-benchmark {name}" for name in ("throughput", "zero_shot", "report")),
]
NEEDS = {  # command -> what needs which package, and the extra that brings it
    "vladva-train debug data.train=wds:a.tar output_dir=o": ("wds:a.tar", "braceexpand", "train"),
    "vladva-train debug data.train=wds:a.tar output_dir=o --dry-run": ("wds:a.tar", "braceexpand", "train"),
    "vladva-train debug data.train=parquet:a.parquet output_dir=o": ("parquet:a.parquet", "datasets", "train"),
    "vladva-train debug data.train=hf:some/where:train output_dir=o": ("hf:some/where:train", "datasets", "train"),
    "vladva-train debug data.evaluation=wds:a.tar output_dir=o": ("wds:a.tar", "braceexpand", "train"),
    "vladva-train debug model.train=qlora output_dir=o": ("model.train=qlora", "bitsandbytes", "qlora"),
    "vladva-train caption scenes:test:8 --output c": ("vladva-train caption", "webdataset", "train"),
    "vladva-benchmark run scenes --model vladva-tiny --data-root d --output r --device cpu": (
        *("the suite scenes", "webdataset", "benchmarks"),
    ),
    "vladva embed --text cat --out a.npz --engine ray": ("--engine ray", "ray", "ray"),
    "vladva embed --text cat --out a.npz --quantize int8": ("--quantize", "sentence_transformers", "vectors"),
    "vladva-benchmark vectors --scenes 16": ("vectors", "sentence_transformers", "train,benchmarks,vectors"),
}
NEEDS_ACCELERATE = {  # peft needs it too, so that it is there wherever the package is whole
    "vladva-train debug --dry-run": ("vladva-train debug", "accelerate", "train"),
    "vladva-train debug output_dir=o": ("vladva-train debug", "accelerate", "train"),
    "vladva-benchmark scene-figures": ("scene-figures", "accelerate", "train,benchmarks"),
    "vladva-benchmark miniature": ("miniature", "accelerate", "train,benchmarks"),
    "vladva quickstart --output-dir q": ("vladva quickstart", "accelerate", "train"),
}

COMMANDS = """
import contextlib, io, json, os, sys

hidden, commands, folder = json.loads(sys.argv[1])

class Hiding:
    '''A finder that finds no package of some names, as where they are not installed.'''

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] not in hidden:
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hiding, sys.meta_path)
os.chdir(folder)
import vladva_benchmarks.cli, vladva_clip.cli, vladva_training.cli

mains = {'vladva': vladva_clip.cli, 'vladva-train': vladva_training.cli, 'vladva-benchmark': vladva_benchmarks.cli}
found = {}
for command in commands:
    program, *words = command.split()
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            status = mains[program].main(words)
        except SystemExit as end:
            status = end.code
    found[command] = status, said.getvalue()
print(json.dumps(found))
"""


def run_without(hidden: set[str], commands: list[str], folder: Path) -> dict[str, list]:
    """Run command lines in an interpreter that has none of some packages; each one's exit status and what it said."""
    arguments = json.dumps([sorted(hidden), commands, str(folder)])
    done = fresh.check(f"import sys; sys.argv = ['-c', {arguments!r}]\n{COMMANDS}", folder)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.tar", "a.parquet"):
        (tmp_path / name).touch()
    return tmp_path


def check(found: dict[str, list], needs: dict[str, tuple[str, str, str]]) -> None:
    for command, (what, package, extra) in needs.items():
        status, said = found[command]
        line = f"{what} needs {package}, which is not installed: pip install {extras.ourselves(extra)}"
        assert status == 2 and line in said and "Traceback" not in said, (command, status, said)


@pytest.mark.wide
def test_every_command_names_the_extra_that_it_lacks_and_helps_without_it(folder):
    rest = set(extras.EXTRAS) - {"accelerate", "tokenizers"}  # which the package itself brings along
    wanted = [f"{command} --help" for command in HELP]
    plans = ["vladva-train debug --dry-run", "vladva-train llava15_7b_24gb --dry-run --on rtx4090"]
    found = run_without(rest, [*wanted, *NEEDS, *plans, "vladva models"], folder)
    assert {command: found[command] for command in wanted} == {command: [0, ""] for command in wanted}
    assert all(found[command] == [0, ""] for command in (*plans, "vladva models"))
    check(found, NEEDS)
    check(run_without({"accelerate"}, list(NEEDS_ACCELERATE), folder), NEEDS_ACCELERATE)


def test_the_table_is_that_of_the_project():
    stated = {
        Requirement(line).name.lower().replace("-", "_"): [name for name in OURS if _has(name, line)]
        for extra in OURS
        for line in PROJECT["optional-dependencies"][extra]
    }
    del stated["numpy"]  # a bound on what the package itself needs
    assert {name: sorted(found) for name, found in extras.EXTRAS.items()} == {
        name: sorted(found) for name, found in stated.items()
    }


def _has(extra: str, requirement: str) -> bool:
    name = Requirement(requirement).name
    return name in {Requirement(line).name for line in PROJECT["optional-dependencies"][extra]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise AttributeError('of another numpy')", "AttributeError: of another numpy"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("from json import no_such_name", "ImportError: cannot import name 'no_such_name'"),
    ],
)
def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch, content, reason):
    (tmp_path / "broken_extra.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(extras.EXTRAS, "broken_extra", ("train",))
    with pytest.raises(extras.ExtraError, match="broken_extra, which is installed.* can't be imported") as error:
        extras.require("broken_extra", purpose="a test")
    assert reason in str(error.value) and "--force-reinstall broken-extra" in str(error.value)
    assert "not installed" not in str(error.value)


def test_a_package_that_others_wrap_is_found_and_defects_of_ours_come_through():
    with pytest.raises(extras.ExtraError, match="a test needs datasets"), extras.named("a test"):
        try:
            raise ModuleNotFoundError("No module named 'datasets'", name="datasets")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("Could not import module 'AutoProcessor'") from error
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), extras.named("a test"):
        import no_such_module  # noqa: F401
