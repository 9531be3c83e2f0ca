"""The miniature's finished runs: JSON files of one run each, read and checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vladva_benchmarks.drawn.scene_retrieval import RECALLS
from vladva_clip.interface.precision_words import in_words
from vladva_clip.scenes import FOIL_KINDS, TRIPLE_KINDS
from vladva_clip.storage import json_files

Run = dict[str, Any]
SPLITS = ("test", "heldout")
FIGURES = {  # of each split
    "retrieval": RECALLS,
    "foils": FOIL_KINDS,
    "itt": TRIPLE_KINDS,
    "tot": TRIPLE_KINDS,
    "winoground": ("text", "image", "group"),
    "zero_shot": ("top_1",),
}
TODAYS_LOSS = {"loss.directions": "sum"}  # in a run's settings; older runs had the mean of both directions
_DOUBLED = ("loss.ntp_weight", "optim.max_grad_norm")
_CAPTIONS = ("continued", "described")  # of rows that write captions
_PARTS = {"figures": dict, "settings": dict, "size": dict, "hardware": dict, "training_seconds": (int, float)}


class UnfinishedError(ValueError):
    """The file of a run is incomplete."""


def path_of(results: Path, row: str, seed: int) -> Path:
    """Return the place of a run."""
    return results / f"{row}-{seed}.json"


def read_run(path: Path) -> Run:
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
    if wrong := _lacks(run):
        raise UnfinishedError(f"{path} is not a finished run: {wrong}")
    if path != path_of(path.parent, run["row"], run["seed"]):
        raise ValueError(f"{path} holds the run {run['row']}-{run['seed']}: rename it, or move it away")
    return run


def read(results: Path, rows: Sequence[str]) -> dict[str, list[Run]]:
    """Read the finished runs, grouped by row in the given order; rows without a run are left out.

    Raises:
        ValueError: as `read_run`; runs of other rows, or of different sizes.
    """
    runs = {path: read_run(path) for path in sorted(results.glob("*-*.json"))}
    first = next(iter(runs), None)
    for path, run in runs.items():
        if run["row"] not in rows:
            raise ValueError(f"{path} has the row {run['row']}, expected one of {', '.join(rows)}: move it away")
        if run["size"] != runs[first]["size"]:
            raise ValueError(
                f"{first} and {path} are runs of different sizes, which can't be compared ({runs[first]['size']} and "
                f"{run['size']}): give each its own --results"
            )
    grouped = {name: [run for run in runs.values() if run["row"] == name] for name in rows}
    return {name: found for name, found in grouped.items() if found}


def in_todays_terms(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a finished run as a run of today states the same training.

    Older runs had half of today's contrastive loss: with twice the other weights and the clipping norm, the whole loss
    is twice theirs, and AdamW's steps are the same.
    """
    if "loss.contrastive" not in settings or settings.items() >= TODAYS_LOSS.items():
        return settings
    doubled = {key: 2 * settings[key] for key in _DOUBLED if isinstance(settings.get(key), float)}
    return in_words(settings) | doubled | TODAYS_LOSS


def _lacks(run: Any) -> str | None:
    """Describe what is missing or wrong in a run; None if it is complete."""
    if not isinstance(run, dict) or not isinstance(run.get("row"), str) or type(run.get("seed")) is not int:
        return "expected an object with row and seed"
    for name, kind in _PARTS.items():
        if not isinstance(run.get(name), kind):
            return f"{name} is {run.get(name)!r:.60}"
    if type(run["hardware"].get("threads")) is not int or type(run.get("samples")) is not int:
        return "hardware.threads or samples is not a whole number"
    return next((wrong for split in SPLITS if (wrong := _lacks_figures(run["figures"].get(split), split))), None)


def _lacks_figures(figures: Any, split: str) -> str | None:
    wanted = FIGURES | ({"captions": _CAPTIONS} if isinstance(figures, dict) and "captions" in figures else {})
    for group, names in wanted.items():
        found = figures.get(group) if isinstance(figures, dict) else None
        values = [found.get(name) if isinstance(found, dict) else None for name in names]
        if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
            return f"{split}, {group} is {found!r:.100}, expected fractions for {', '.join(names)}"
    return None
