"""The paper's ablation (arXiv 2412.04378, tables 4 and 5) in miniature: the recipe's parts, trained on the drawn world.

    vladva-benchmark miniature                  # all unfinished runs, then the tables and the plot
    vladva-benchmark miniature --only both+ntp  # one row
    vladva-benchmark miniature --choose         # data order and learning rate, on the validation split
    vladva-benchmark miniature --report-only

All rows of vladva-tiny start from the same base and see the same pairs in the same batches. The rival is an open_clip
CLIP of equal size, trained from scratch on the same pairs. No row trains with false captions. Each finished run is one
JSON file; a run whose file exists is skipped.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vladva_benchmarks import files
from vladva_benchmarks.drawn import (
    miniature_layouts,
    miniature_report,
    miniature_rows,
    miniature_runs,
    scene_figures,
    scene_rival,
)
from vladva_benchmarks.drawn.caption_quality import Captioner
from vladva_benchmarks.drawn.miniature_rows import CHOSEN, ORDERS, ROWS, SAMPLES, Choice, Row, Size, recipe_of, sources
from vladva_benchmarks.drawn.miniature_runs import CHOICES, WORLDS, UnfinishedError
from vladva_benchmarks.drawn.scene_tasks import World
from vladva_benchmarks.gauges import versions
from vladva_benchmarks.report import marked_text
from vladva_benchmarks.suites.models import Encoder
from vladva_clip.hub.card import RECORD
from vladva_clip.interface.arguments import user_path
from vladva_clip.sources.registry import packaged_base
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import LOCAL, read_json
from vladva_training.config import Recipe, flat
from vladva_training.train import train

RESULTS = Path("docs/miniature")
TINY = "vladva-tiny"
RATES = (1e-3, 2e-3, 4e-3)
VALIDATION = (World("validation", "varied"),)


@dataclass(frozen=True)
class Bench:
    """What all runs share.

    size: how much. work: directory for the runs' own files. base: of vladva-tiny; None for the packaged one. worlds:
    what the trained models are measured on. choice: data order and learning rate.
    """

    size: Size
    work: Path
    base: Path | None = None
    worlds: Sequence[World] = WORLDS
    choice: Choice = CHOSEN

    @property
    def base_directory(self) -> Path:
        """The base's directory."""
        return self.base or packaged_base(TINY)


def run(row: Row, seed: int, bench: Bench) -> dict[str, Any]:
    """Train and measure one run.

    Returns:
        Plain JSON data: figures, durations in seconds, settings, versions, hardware.
    """
    size = bench.size
    trained = _trained(row, seed, bench)
    started = time.perf_counter()
    counts = (size.count, size.foil_count, size.caption_count)
    figures = scene_figures.measure(trained.encoder, trained.captioner, *counts, bench.worlds)
    return {
        "row": row.name,
        "seed": seed,
        "samples": size.steps(row.share) * size.batch_size if row.train else 0,
        "figures": figures,
        "training_seconds": round(trained.seconds, 1),
        "evaluation_seconds": round(time.perf_counter() - started, 1),
        "settings": settings_of(row, seed, bench),
        "size": size.shared(),
        "versions": versions("torch", "transformers", "peft", "open_clip_torch"),
        "hardware": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
    }


@dataclass(frozen=True)
class Trained:
    """The outcome of a row's training: encoder, captioner (None for the rival), seconds of training."""

    encoder: Encoder
    captioner: Captioner | None
    seconds: float


def _trained(row: Row, seed: int, bench: Bench) -> Trained:
    if row.train == "rival":
        return _train_rival(row, seed, bench)
    if row.train is None:
        return Trained(*scene_figures.load(f"{LOCAL}{bench.base_directory}"), 0.0)
    recipe = located(recipe_of(row, seed, bench.size, _place(row, seed, bench), bench.choice), row, bench)
    if status := train(recipe):
        raise SystemExit(status)
    place = Path(recipe.output_dir)
    seconds = read_json(place / RECORD)["state"]["seconds"]  # over all starts
    return Trained(*scene_figures.load(f"{LOCAL}{place / 'adapter'}"), seconds)


def _place(row: Row, seed: int, bench: Bench) -> Path:
    """The run's own folder: with its choice, since a run of another one can't be continued there."""
    return bench.work / f"{row.slug}-{bench.choice.slug}-{seed}"


def located(recipe: Recipe, row: Row, bench: Bench) -> Recipe:
    """Return the recipe on the bench's base; a row with a layout of its own gets a copy of the base in that layout."""
    if row.layout is None and bench.base is None:
        return recipe
    directory = bench.base_directory
    if row.layout is not None:
        directory = bench.work / "bases" / miniature_rows.slug(row.layout)
        miniature_layouts.write_base(bench.base_directory, row.layout, directory)
    return replace(recipe, model=replace(recipe.model, name=f"{LOCAL}{directory}", pretrained=None))


def _train_rival(row: Row, seed: int, bench: Bench) -> Trained:
    started, steps = time.perf_counter(), bench.size.steps(row.share)
    batches = scene_rival.scene_batches(seed, bench.size.batch_size, sources(row, bench.size, bench.choice))
    rival = scene_rival.train_rival(batches, steps, seed, autocast=True, on_step=_progress(steps))
    return Trained(scene_rival.rival_encoder(rival), None, time.perf_counter() - started)


def settings_of(row: Row, seed: int, bench: Bench) -> dict[str, Any]:
    """Return the settings that decide a run's result, as they are stored in JSON; the base by its fingerprint."""
    if row.train == "rival":
        return {**vars(scene_rival.OPTIM), "data.train": list(sources(row, bench.size, bench.choice))}
    base = {"base": BaseFiles(bench.base_directory).fingerprint}
    if row.train is None:
        return base
    left_out = ("output_dir", "resume", "model.compile", "data.worker_timeout")
    recipe = recipe_of(row, seed, bench.size, bench.work, bench.choice)
    shown = {key: value for key, value in flat(recipe).items() if key not in left_out}
    return base | json.loads(json.dumps(shown)) | ({"layout": row.layout} if row.layout else {})


def _progress(steps: int):
    def show(step: int, loss: float) -> None:
        if step % 20 == 0 or step == steps:
            print(f"clip: step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    return show


Wanted = tuple[Row, int, Bench]


def wanted_runs(rows: Sequence[Row], bench: Bench, results: Path) -> dict[Path, Wanted]:
    """Return the files of all runs of the rows."""
    return {miniature_runs.path_of(results, row.name, seed): (row, seed, bench) for row in rows for seed in row.seeds}


def wanted_choices(rows: Sequence[Row], bench: Bench, results: Path) -> dict[Path, Wanted]:
    """Return the files of the choices, on the validation split: each rate, then each order at the chosen one."""
    rates = [Choice(CHOSEN.order, rate) for rate in RATES]
    choices = dict.fromkeys([*rates, *(Choice(order, CHOSEN.learning_rate) for order in ORDERS)])
    return {
        results / CHOICES / f"{row.slug}-{choice.slug}.json": (row, 0, replace(bench, worlds=VALIDATION, choice=choice))
        for row in rows
        for choice in choices
    }


def run_all(wanted: Mapping[Path, Wanted], results: Path) -> None:
    """Make every unfinished run; all existing ones are checked first."""
    marked_text.check(results / miniature_report.REPORT, miniature_report.START, miniature_report.END)
    for _, _, bench in wanted.values():
        files.check_writable(bench.work)
    for place in {path.parent for path in wanted}:
        files.check_writable(place)
    finished = {path for path, asked in wanted.items() if _is_finished(path, *asked)}
    for path, asked in wanted.items():
        if path not in finished:
            files.write_json(path, run(*asked))


def _is_finished(path: Path, row: Row, seed: int, bench: Bench) -> bool:
    if not os.path.lexists(path):
        return False
    try:
        _check_finished(miniature_runs.read_run(path, bench.worlds), path, row, seed, bench)
    except UnfinishedError as error:
        print(f"{error}: running it again", file=sys.stderr)
        return False
    print(f"{path} is finished", file=sys.stderr)
    return True


def _check_finished(found: miniature_runs.Run, path: Path, row: Row, seed: int, bench: Bench) -> None:
    """Refuse a run of another length, measure or settings: it can't stand in the same table."""
    asked = {"size": bench.size.shared(), "settings": json.loads(json.dumps(settings_of(row, seed, bench)))}
    for part, values in asked.items():
        if changed := sorted(key for key in values if found[part].get(key) != values[key]):
            key = changed[0]
            raise ValueError(
                f"{path} is a run with {part} {key}={found[part].get(key)!r}, now {values[key]!r}; remove the file to "
                "run it again, or give another --results"
            )


def _parse(arguments: Sequence[str] | None, names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "vladva-benchmark miniature", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="ROW", help="; ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, help="only these of a row's seeds")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="training pairs of each run")
    parser.add_argument("--threads", type=int, help="torch threads in this process")
    parser.add_argument("--compile", action="store_true", help="torch.compile the LLM; needs a C++ compiler")
    parser.add_argument(
        "--results", type=user_path, default=RESULTS, help="one JSON file per run, the table and the plot"
    )
    parser.add_argument("--work", type=user_path, default=Path("runs/miniature"), help="adapters and logs")
    parser.add_argument(
        "--choose",
        action="store_true",
        help="instead of the rows' runs, one of each learning rate and one of each data order at the chosen rate (of "
        "--only, or else `both`), measured on the validation split",
    )
    parser.add_argument("--report-only", action="store_true")
    return parser.parse_args(arguments)


def _asked(options: argparse.Namespace) -> list[Row]:
    """The rows that a command line asks for, with their seeds."""
    seeds, names = options.seeds, options.only or (["both"] if options.choose else [row.name for row in ROWS])
    rows = [row for row in ROWS if row.name in names]
    return [replace(row, seeds=tuple(one for one in row.seeds if not seeds or one in seeds)) for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    names = [row.name for row in ROWS]
    options = _parse(arguments, names)
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.report_only:
        bench = Bench(Size(options.samples, threads=options.threads, compile=options.compile), options.work)
        wanted = wanted_choices if options.choose else wanted_runs
        run_all(wanted(_asked(options), bench, options.results), options.results)
    if options.choose:
        print(miniature_report.choices_table(miniature_runs.read_choices(options.results)))
        return 0
    miniature_report.write(options.results, names)
    print(f"results: {options.results}, with the tables in {miniature_report.REPORT}; plot: {miniature_report.PLOT}")
    return 0
