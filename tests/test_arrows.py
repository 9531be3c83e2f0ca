"""The plan of the house: which folder may import which. Scores know no model, what lies on disk knows nobody."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"vladva_clip": "vladva_clip", "vladva_training": "training", "vladva_benchmarks": "benchmarks"}

ROOMS = {  # package -> room (a folder or a file at its top) -> the rooms of the package that it may import
    "vladva_clip": {
        "__init__": set(),
        "interface": set(),
        "scenes": set(),
        "metrics": set(),
        "compact": {"interface"},
        "storage": set(),
        "pictures": {"interface", "storage"},
        "sources": {"interface", "storage"},
        "encoder": {"interface", "pictures", "storage", "sources"},
        "export": {"interface", "storage", "sources", "encoder"},
        "hub": {"interface", "storage", "sources", "encoder"},
        "saving": {"storage", "encoder", "export"},
        "model": {"interface", "storage", "sources", "encoder", "compact", "hub", "saving"},
        "factory": {"interface", "storage", "sources", "encoder", "compact", "model"},
        "zero_shot": {"interface", "storage", "encoder", "model"},
        "integrations": {"interface", "storage", "sources", "factory"},
        "index": {"interface", "storage", "pictures", "zero_shot", "compact"},
        "bulk": {"interface", "storage", "pictures", "workers", "records", "index", "compact"},
        "workers": {"interface"},
        "records": {"interface", "storage", "pictures", "encoder"},
        "quickstart": {"interface", "storage", "metrics", "pictures", "scenes", "factory"},
        "commands": {
            "interface",
            "storage",
            "pictures",
            "sources",
            "factory",
            "export",
            "hub",
            "index",
            "bulk",
            "quickstart",
        },
        "cli": {"interface", "commands"},
    },
    "vladva_training": {
        "__init__": set(),
        "losses": set(),
        "config": {"losses"},
        "recipes": {"config"},
        "overrides": {"config"},
        "processes": set(),
        "step": {"config", "losses", "processes"},
        "data": {"config", "step"},
        "captioning": {"config", "processes", "data"},
        "plan": {"config", "losses", "recipes", "overrides", "step", "data"},
        "run": {"config", "losses", "recipes", "processes", "step", "data", "plan"},
        "tiny": {"processes", "run"},
        "train": {"config", "processes", "step", "data", "run"},
        "cli": {"recipes", "overrides", "processes", "captioning", "plan", "run", "tiny", "train"},
    },
    "vladva_benchmarks": {
        "__init__": set(),
        "files": set(),
        "gauges": set(),
        "suites": {"files", "gauges"},
        "report": {"files", "suites"},
        "drawn": {"files", "gauges", "suites", "report"},
        "speed": {"files", "gauges", "suites"},
        "cli": set(),  # it imports the command that was asked for
    },
}
INSIDE = {  # the files that may import few others, by package and path -> modules and folders of ours
    "vladva_clip/storage/config.py": {
        *("vladva_clip", "vladva_clip.storage.json_files", "vladva_clip.storage.encoding_config"),
        "vladva_clip.storage.prompt_config",
    },
    "vladva_clip/storage/encoding_config.py": set(),
    "vladva_clip/storage/prompt_config.py": set(),
    "vladva_clip/encoder/pooling.py": set(),
    "vladva_clip/encoder/generation.py": {"vladva_clip.encoder.rows"},
    "training/losses/contrastive.py": set(),
    "training/losses/next_token.py": set(),
    "benchmarks/suites/scoring.py": {"vladva_clip.metrics"},
    "benchmarks/suites/tasks.py": {
        *("vladva_benchmarks.suites.pictures", "vladva_benchmarks.suites.scoring", "vladva_clip.metrics"),
        "vladva_clip.zero_shot",
    },
}
PACKAGES_BELOW = {
    "vladva_clip": set(),
    "vladva_training": {"vladva_clip"},
    "vladva_benchmarks": {"vladva_clip", "vladva_training"},
}


def files(package: str) -> list[Path]:
    return sorted((ROOT / FOLDERS[package]).rglob("*.py"))


def module(path: Path) -> str:
    """The dotted name of a file: `vladva_clip.encoder.prompts`."""
    package = next(name for name, folder in FOLDERS.items() if path.is_relative_to(ROOT / folder))
    parts = path.relative_to(ROOT / FOLDERS[package]).with_suffix("").parts
    return ".".join((package, *parts)).removesuffix(".__init__")


MODULES = {module(path): path for package in FOLDERS for path in files(package)}


def room(name: str) -> str:
    """The folder, or file at its package's top, in which a module lies."""
    return (name.split(".") + ["__init__"])[1]


def imported(path: Path, with_types: bool = True) -> set[str]:
    """The modules of ours that a file imports anywhere in it; without types, not those for annotations alone."""
    tree = ast.parse(path.read_text())
    only_types = set() if with_types else {id(node) for block in _type_blocks(tree) for node in ast.walk(block)}
    nodes = [node for node in ast.walk(tree) if id(node) not in only_types]
    return {name for node in nodes for name in _names(node, module(path), path.name == "__init__.py")}


def _type_blocks(tree: ast.Module) -> list[ast.If]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]


def _names(node: ast.AST, here: str, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in MODULES)
    elif isinstance(node, ast.ImportFrom):
        start = here.split(".")[: len(here.split(".")) - node.level + is_package] if node.level else []
        base = ".".join([*start, *([node.module] if node.module else [])])
        found = {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
        yield from found & set(MODULES)


@pytest.mark.parametrize("package", FOLDERS)
def test_every_room_has_its_arrows_stated(package):
    assert {room(module(path)) for path in files(package)} == set(ROOMS[package])


@pytest.mark.parametrize("package", FOLDERS)
def test_no_arrow_points_back(package):
    for path in files(package):
        here = room(module(path))
        there = {name for name in imported(path) if name.split(".")[0] == package and name != package}
        back = {name for name in there if room(name) not in ROOMS[package][here] | {here}}
        assert not back, f"{path.relative_to(ROOT)} imports {back}"


@pytest.mark.parametrize("package", FOLDERS)
def test_the_stated_arrows_have_no_circle_and_are_used(package):
    rooms, seen = ROOMS[package], []
    while left := [name for name in rooms if name not in seen]:
        ready = [name for name in left if rooms[name] <= set(seen)]
        assert ready, f"a circle among {left}"
        seen += ready
    for here, allowed in rooms.items():
        used = {room(name) for path in files(package) if room(module(path)) == here for name in imported(path)}
        assert here == "cli" or allowed <= used, f"{here} does not import {allowed - used}"


@pytest.mark.parametrize("package", FOLDERS)
def test_packages_import_only_downwards(package):
    for path in files(package):
        others = {name.split(".")[0] for name in imported(path)} - {package}
        assert others <= PACKAGES_BELOW[package], path


@pytest.mark.parametrize("path", INSIDE)
def test_files_that_know_few_others(path):
    found = imported(ROOT / path)
    assert all(name in INSIDE[path] or name.rpartition(".")[0] in INSIDE[path] for name in found), found


@pytest.mark.wide
def test_no_two_files_import_each_other_over_any_way():
    """Annotations apart: a circle of imports works or fails depending on which file comes first."""
    arrows = {name: imported(path, with_types=False) - {name} for name, path in MODULES.items()}
    arrows = {name: {one for one in there if MODULES[one].name != "__init__.py"} for name, there in arrows.items()}
    while leaves := [name for name, there in arrows.items() if not there]:
        arrows = {name: there - set(leaves) for name, there in arrows.items() if name not in leaves}
    assert not arrows


def test_no_circle_in_the_scenes_even_with_annotations():
    scenes = {name: path for name, path in MODULES.items() if name.startswith("vladva_clip.scenes.")}
    arrows = {name: imported(path) for name, path in scenes.items()}
    while leaves := [name for name, there in arrows.items() if not there]:
        arrows = {name: there - set(leaves) for name, there in arrows.items() if name not in leaves}
    assert not arrows


@pytest.mark.parametrize("package", FOLDERS)
def test_every_folder_says_its_sentence(package):
    for path in files(package):
        if path.name == "__init__.py":
            assert (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].endswith("."), path
