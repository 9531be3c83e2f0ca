"""The miniature's finished runs: JSON files of one run each, read and checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vladva_benchmarks.drawn.miniature_rows import slug
from vladva_benchmarks.drawn.scene_retrieval import RECALLS
from vladva_benchmarks.drawn.scene_tasks import World
from vladva_clip.scenes import FOIL_KINDS
from vladva_clip.storage import json_files

Run = dict[str, Any]
WORLDS = (World("test", "varied"), World("test", "unseen"))
CHOICES = "choices"
"""The folder of the runs by which data order and learning rate are chosen."""
FIGURES = {  # of each world, at least
    "retrieval": RECALLS,
    "foils": FOIL_KINDS,
    "zero_shot": ("top_1",),
    "zero_shot_single": ("top_1",),
    "size": ("acc",),
}
_CAPTIONS = ("continued", "described")  # of rows that write captions
_PARTS = {"figures": dict, "settings": dict, "size": dict, "hardware": dict, "training_seconds": (int, float)}


class UnfinishedError(ValueError):
    """The file of a run is incomplete."""


def path_of(results: Path, row: str, seed: int) -> Path:
    """Return the place of a run."""
    return results / f"{slug(row)}-{seed}.json"


def read_run(path: Path, worlds: Sequence[World] = WORLDS) -> Run:
    """Read a finished run.

    Raises:
        UnfinishedError: it is empty, truncated, or lacks one of the figures that every run has.
        ValueError: it is not a file, or the run of another name.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file: move it away, or give another --results")
    try:
        run = json_files.read(path)
    except ValueError as error:
        raise UnfinishedError(str(error)) from error
    if wrong := _lacks(run, worlds):
        raise UnfinishedError(f"{path} is not a finished run: {wrong}")
    if not path.name.startswith(slug(run["row"])) or worlds == WORLDS and path.name != _name(run):
        raise ValueError(f"{path} holds the run {_name(run)}: rename it, or move it away")
    return run


def _name(run: Run) -> str:
    return path_of(Path(), run["row"], run["seed"]).name


def read(results: Path, rows: Sequence[str]) -> dict[str, list[Run]]:
    """Read the finished runs, grouped by row in the given order; rows without a run are left out.

    Raises:
        ValueError: as `read_run`; runs of other rows, of different sizes, or of different bases.
    """
    runs = {path: read_run(path) for path in sorted(results.glob("*-*.json"))}
    for path, run in runs.items():
        if run["row"] not in rows:
            raise ValueError(f"{path} has the row {run['row']}, expected one of {', '.join(rows)}: move it away")
    _check_equal({path: run["size"] for path, run in runs.items()}, "sizes")
    _check_equal({path: run["settings"]["base"] for path, run in runs.items() if "base" in run["settings"]}, "bases")
    grouped = {name: [run for run in runs.values() if run["row"] == name] for name in rows}
    return {name: found for name, found in grouped.items() if found}


def read_choices(results: Path) -> list[Run]:
    """Read the runs by which the settings are chosen.

    Raises:
        ValueError: as `read`.
    """
    paths = sorted((results / CHOICES).glob("*.json"))
    runs = {path: read_run(path, (World("validation", "varied"),)) for path in paths}
    _check_equal({path: run["size"] for path, run in runs.items()}, "sizes")
    return list(runs.values())


def _check_equal(found: dict[Path, Any], what: str) -> None:
    """Refuse runs that can't be compared."""
    first = next(iter(found), None)
    for path, value in found.items():
        if value != found[first]:
            raise ValueError(
                f"{first} and {path} are runs of different {what}, which can't be compared ({found[first]} and "
                f"{value}): give each its own --results"
            )


def _lacks(run: Any, worlds: Sequence[World]) -> str | None:
    """Describe what is missing or wrong in a run; None if it is complete."""
    if not isinstance(run, dict) or not isinstance(run.get("row"), str) or type(run.get("seed")) is not int:
        return "expected an object with row and seed"
    for name, kind in _PARTS.items():
        if not isinstance(run.get(name), kind):
            return f"{name} is {run.get(name)!r:.60}"
    if type(run["hardware"].get("threads")) is not int or type(run.get("samples")) is not int:
        return "hardware.threads or samples is not a whole number"
    found = ((world.name, run["figures"].get(world.name)) for world in worlds)
    return next((wrong for name, figures in found if (wrong := _lacks_figures(figures, name))), None)


def _lacks_figures(figures: Any, world: str) -> str | None:
    wanted = FIGURES | ({"captions": _CAPTIONS} if isinstance(figures, dict) and "captions" in figures else {})
    for group, names in wanted.items():
        found = figures.get(group) if isinstance(figures, dict) else None
        values = [found.get(name) if isinstance(found, dict) else None for name in names]
        if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
            return f"{world}, {group} is {found!r:.100}, expected fractions for {', '.join(names)}"
    return None
