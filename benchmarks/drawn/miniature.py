"""The paper's ablation (arXiv 2412.04378, table 4) in miniature: the recipe's parts, trained on the drawn world.

    vladva-benchmark miniature                  # all unfinished runs, then the table and the plot
    vladva-benchmark miniature --only both+ntp  # one row
    vladva-benchmark miniature --report-only

All rows of vladva-tiny start from the same base and see the same pairs in the same batches. The rival is an open_clip
CLIP of equal size, trained from scratch on the same pairs. No row trains with false captions. The first third of the
pairs are scenes of two objects with their places swapped, as in the `tiny` recipe. Each finished run is one JSON file;
a run whose file exists is skipped.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vladva_benchmarks import files
from vladva_benchmarks.drawn import miniature_report, miniature_runs, scene_figures, scene_rival
from vladva_benchmarks.drawn.caption_quality import Captioner
from vladva_benchmarks.drawn.miniature_runs import UnfinishedError
from vladva_benchmarks.gauges import versions
from vladva_benchmarks.report import marked_text
from vladva_benchmarks.suites.models import Encoder
from vladva_clip.hub.card import RECORD
from vladva_clip.interface.arguments import user_path
from vladva_clip.storage.config import read_json
from vladva_training.config import Recipe, flat
from vladva_training.recipes import tiny
from vladva_training.train import train

RESULTS = Path("docs/miniature")
BATCH_SIZE = 32
SAMPLES = 19_200
NTP_WEIGHT = 2.0  # twice the paper's: the committed runs had 1 beside half of today's contrastive loss


@dataclass(frozen=True)
class Row:
    """One row of the table: which parts of vladva-tiny train (`model.train`, soft prompts) and with which losses.

    `train` is None if nothing trains, and "rival" for the open_clip CLIP.
    """

    name: str
    train: str | None
    soft_prompt: bool = False
    ntp_weight: float = 0.0
    seeds: tuple[int, ...] = (0,)


ROWS = (
    Row("hand-written", None),
    Row("soft-prompt", "none", True),
    Row("lora", "lora"),
    Row("both", "lora", True, seeds=(0, 1, 2)),
    Row("both+ntp", "lora", True, NTP_WEIGHT, seeds=(0, 1, 2)),
    Row("clip", "rival", seeds=(0, 1, 2)),
)


@dataclass(frozen=True)
class Size:
    """How long a run trains and how it is measured; the same for all rows.

    samples: pairs. count: scenes in each split's gallery. caption_count: scenes that the model describes.
    """

    samples: int = SAMPLES
    batch_size: int = BATCH_SIZE
    count: int = 1000
    foil_count: int = 500
    caption_count: int = 200
    threads: int | None = None
    compile: bool = False

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.samples // self.batch_size

    @property
    def sources(self) -> tuple[str, str]:
        """The pairs, in turn: a third with their places swapped, then whole families."""
        swaps = max(1, self.steps // 3) * self.batch_size
        return f"scenes:train:{swaps}:0:pairs:swaps", f"scenes:train:{self.samples - swaps}"

    def shared(self) -> dict[str, int]:
        """Return the settings that all runs of a table must share."""
        return {key: value for key, value in vars(self).items() if key not in ("threads", "compile")}


def recipe_of(row: Row, seed: int, size: Size, output_dir: Path) -> Recipe:
    """Return the `tiny` recipe with a row's parts and another length; nothing else changes."""
    recipe = tiny()
    return replace(
        recipe,
        name=f"miniature {row.name}",
        model=replace(recipe.model, train=row.train, soft_prompt=row.soft_prompt, compile=size.compile),
        data=replace(recipe.data, train=size.sources, in_turn=True, evaluation=None, num_workers=0),
        loss=replace(recipe.loss, ntp_weight=row.ntp_weight, hard_negatives=0, text_text_weight=0.0),
        batch=replace(recipe.batch, size=size.batch_size),
        run=replace(recipe.run, steps=size.steps, epochs=1, checkpoint_every=0, evaluate_every=0, best_metric=None),
        output_dir=str(output_dir),
        seed=seed,
        resume=True,
    )


def run(row: Row, seed: int, size: Size, work: Path) -> dict:
    """Train and measure one run.

    Args:
        row: what trains.
        seed: for the initialization and the order of the pairs.
        size: how much.
        work: directory for the run's own files.

    Returns:
        Plain JSON data: figures, durations in seconds, settings, versions, hardware.
    """
    trained = _trained(row, seed, size, work / f"{row.name}-{seed}")
    started = time.perf_counter()
    counts = (size.count, size.foil_count, size.caption_count)
    figures = scene_figures.measure(trained.encoder, trained.captioner, *counts)
    return {
        "row": row.name,
        "seed": seed,
        "samples": size.samples if row.train else 0,
        "figures": figures,
        "training_seconds": round(trained.seconds, 1),
        "evaluation_seconds": round(time.perf_counter() - started, 1),
        "settings": trained.settings,
        "size": size.shared(),
        "versions": versions("torch", "transformers", "peft", "open_clip_torch"),
        "hardware": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
    }


@dataclass(frozen=True)
class Trained:
    """The outcome of a row's training: encoder, captioner (None for the rival), settings, seconds of training."""

    encoder: Encoder
    captioner: Captioner | None
    settings: dict
    seconds: float


def _trained(row: Row, seed: int, size: Size, work: Path) -> Trained:
    if row.train == "rival":
        return _train_rival(seed, size)
    if row.train is None:
        return _load("vladva-tiny", "base", {}, 0.0)
    recipe = recipe_of(row, seed, size, work)
    if status := train(recipe):
        raise SystemExit(status)
    seconds = read_json(work / RECORD)["state"]["seconds"]  # over all starts
    return _load(f"local-dir:{work / 'adapter'}", None, settings_of(recipe), seconds)


def _train_rival(seed: int, size: Size) -> Trained:
    started = time.perf_counter()
    batches = scene_rival.scene_batches(seed, size.batch_size, size.sources)
    rival = scene_rival.train_rival(batches, size.steps, seed, autocast=True, on_step=_progress(size.steps))
    return Trained(scene_rival.rival_encoder(rival), None, vars(scene_rival.OPTIM), time.perf_counter() - started)


def _load(source: str, tag: str | None, settings: dict, seconds: float) -> Trained:
    return Trained(*scene_figures.load(source, tag), settings, seconds)


def settings_of(recipe: Recipe) -> dict:
    """Return the settings that decide a run's result, as they are stored in JSON."""
    left_out = ("output_dir", "resume", "model.compile", "data.worker_timeout")
    shown = {key: value for key, value in flat(recipe).items() if key not in left_out}
    return json.loads(json.dumps(shown | miniature_runs.TODAYS_LOSS))


def _progress(steps: int):
    def show(step: int, loss: float) -> None:
        if step % 20 == 0 or step == steps:
            print(f"clip: step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    return show


def run_all(rows: Sequence[Row], size: Size, results: Path, work: Path) -> None:
    """Make every unfinished run; all existing ones are checked first."""
    marked_text.check(results / miniature_report.REPORT, miniature_report.START, miniature_report.END)
    wanted = {miniature_runs.path_of(results, row.name, seed): (row, seed) for row in rows for seed in row.seeds}
    files.check_writable(results)
    files.check_writable(work)
    finished = {path for path, asked in wanted.items() if _is_finished(path, *asked, size)}
    for path, (row, seed) in wanted.items():
        if path not in finished:
            files.write_json(path, run(row, seed, size, work))


def _is_finished(path: Path, row: Row, seed: int, size: Size) -> bool:
    if not os.path.lexists(path):
        return False
    try:
        _check_finished(miniature_runs.read_run(path), path, row, seed, size)
    except UnfinishedError as error:
        print(f"{error}: running it again", file=sys.stderr)
        return False
    print(f"{path} is finished", file=sys.stderr)
    return True


def _check_finished(found: miniature_runs.Run, path: Path, row: Row, seed: int, size: Size) -> None:
    """Refuse a run of another length, measure or settings: it can't stand in the same table."""
    asked = {"size": size.shared(), "settings": {}}
    if row.train == "rival":
        asked["settings"] = vars(scene_rival.OPTIM)
    elif row.train:
        asked["settings"] = settings_of(recipe_of(row, seed, size, path.parent))
    for part, values in asked.items():
        stored = miniature_runs.in_todays_terms(found[part])
        if changed := sorted(key for key in values if stored.get(key) != values[key]):
            key = changed[0]
            raise ValueError(
                f"{path} is a run with {part} {key}={stored.get(key)!r}, now {values[key]!r}; remove the file to "
                "run it again, or give another --results"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(
        "vladva-benchmark miniature", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, help="only these of a row's seeds")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="training pairs of each run")
    parser.add_argument("--threads", type=int, help="torch threads in this process")
    parser.add_argument("--compile", action="store_true", help="torch.compile the LLM; needs a C++ compiler")
    parser.add_argument(
        "--results", type=user_path, default=RESULTS, help="one JSON file per run, the table and the plot"
    )
    parser.add_argument("--work", type=user_path, default=Path("runs/miniature"), help="adapters and logs")
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = [
        replace(row, seeds=tuple(seed for seed in row.seeds if not options.seeds or seed in options.seeds))
        for row in ROWS
        if row.name in options.only
    ]
    if not options.report_only:
        size = Size(options.samples, threads=options.threads, compile=options.compile)
        run_all(rows, size, options.results, options.work)
    miniature_report.write(options.results, [row.name for row in ROWS])
    print(f"results: {options.results}, with the table in {miniature_report.REPORT}; plot: {miniature_report.PLOT}")
    return 0
