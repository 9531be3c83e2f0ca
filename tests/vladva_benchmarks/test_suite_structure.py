"""The arrows between the files of the suites: what scores knows no model, what reads data sets knows no scores."""

import ast
from pathlib import Path

import pytest

from vladva_benchmarks import suites

PACKAGE = Path(suites.__file__).parent
READERS = {"clip_benchmark_data", "nocaps", "sugarcrepe_pp", "winoground", "drawn_scenes"}
ALLOWED = {
    "pictures": set(),
    "scoring": set(),
    "annotations": set(),
    "models": set(),
    "tasks": {"pictures", "scoring"},
    "layouts": {"tasks"},
    "clip_benchmark_data": {"annotations", "layouts", "pictures", "tasks"},
    "nocaps": {"annotations", "layouts", "pictures", "tasks"},
    "winoground": {"annotations", "layouts", "pictures", "tasks"},
    "sugarcrepe_pp": {"annotations", "clip_benchmark_data", "layouts", "pictures", "tasks"},
    "drawn_foils": {"annotations", "pictures", "tasks"},
    "drawn_scenes": {"annotations", "drawn_foils", "pictures", "tasks"},
    "catalog": {"layouts", "tasks"} | READERS,
    "classifier": {"models"},
    "feature_cache": set(),
    "encoding": {"classifier", "feature_cache", "models", "pictures"},
    "failures": {"feature_cache"},
    "results": {"models", "pictures", "tasks"},
    "runner": {
        *("catalog", "drawn_scenes", "encoding", "failures", "feature_cache", "layouts", "models", "results", "tasks"),
    },
}


def imported(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    files = {file.stem for file in PACKAGE.glob("*.py")}
    parts = [name.split(".") for name in names if name.startswith("vladva_benchmarks.suites.")]
    return {part[2] for part in parts} & files


@pytest.mark.parametrize("name", sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"))
def test_no_arrow_points_back(name):
    assert imported(PACKAGE / f"{name}.py") <= ALLOWED[name]
