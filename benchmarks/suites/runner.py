"""Runs suites from data root to result files. All data is checked before a model loads; nothing is computed twice.

If a suite fails, the next one still runs. The failure is reported at once, and again at the end.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vladva_benchmarks import files
from vladva_benchmarks.suites import catalog, drawn_scenes, layouts, models, results
from vladva_benchmarks.suites.encoding import Embedded, embed_tasks
from vladva_benchmarks.suites.failures import Failures, describe
from vladva_benchmarks.suites.models import Encoder
from vladva_benchmarks.suites.results import Place, UnfinishedError
from vladva_benchmarks.suites.suite import Suite
from vladva_benchmarks.suites.tasks import Task
from vladva_clip.bulk.feature_cache import PART, FeatureCache
from vladva_clip.interface import devices
from vladva_training.processes.distributed import Processes
from vladva_training.processes.faults import Faults


@dataclass(frozen=True)
class Settings:
    """The options of `vladva-benchmark run`.

    suites: names from the catalog. features: None for a folder in `output`. scene_pictures: in each drawn data set.
    subset: accept data sets of any size. part: items in a part of the feature cache. command: as typed.
    """

    suites: Sequence[str]
    model: str
    data_root: Path
    pretrained: str | None = None
    output: Path = Path("results")
    features: Path | None = None
    batch_size: int = 64
    num_workers: int = 4
    device: str | None = None
    precision: str | None = None
    cache_dir: str | None = None
    subset: bool = False
    scene_pictures: int = drawn_scenes.COUNT
    part: int = PART
    command: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A suite that has been read: its data sets, where their results go, and earlier results."""

    suite: Suite
    tasks: list[Task]
    places: list[Place]
    data: list[str]  # fingerprints
    earlier: list[dict[str, Any] | None]
    due: tuple[Place, ...] = ()  # known once the model is loaded


def run(settings: Settings) -> list[Path]:
    """Evaluate a model on suites; the result files, in the order of the suites.

    Raises:
        ValueError: everything that is missing or wrong or can't be written, and what to do. All suites that it does
            not name have their results.
    """
    processes = Processes.start()
    try:
        return _run(settings, processes)
    finally:
        processes.end()


def _run(settings: Settings, processes: Processes) -> list[Path]:
    device = processes.device if settings.device is None else devices.resolve(settings.device)
    suites = catalog.find(list(settings.suites))
    tag = models.find_pretrained(settings.model, settings.pretrained)
    failures = Failures(processes)
    plans = [plan for suite in suites if (plan := _plan(suite, settings, tag, failures, processes))]
    if not plans:
        raise failures.error()
    reported = _report(failures, 0, processes)
    _check_output(plans, settings, processes)
    encoder = _load(settings, tag, device)
    plans = [plan for one in plans if (plan := _with_due(one, encoder, failures, processes))]
    _report(failures, reported, processes)
    for plan in plans:
        with failures.of(plan.suite.name) as sharing:
            _evaluate(plan, encoder, settings, sharing)
    paths = [place.path for plan in plans for place in plan.places]
    written = sum(path.is_file() for path in paths)
    _say(processes, f"results: {written} file{'s' * (written != 1)} in {settings.output}")
    if failures:
        raise failures.error()
    return paths


def _check_output(plans: list[Plan], settings: Settings, processes: Processes) -> None:
    faults = Faults()
    with faults.noted():
        if processes.is_main and any(None in plan.earlier for plan in plans):
            files.check_writable(settings.output)
            files.check_writable(_features(settings))
    faults.share(processes)


def _features(settings: Settings) -> Path:
    return settings.features or settings.output / "features"


def _load(settings: Settings, tag: str, device: torch.device) -> Encoder:
    try:
        return models.load(settings.model, tag, device, settings.precision, settings.cache_dir)
    except (MemoryError, OSError, torch.OutOfMemoryError) as error:
        raise ValueError(f"{settings.model} can't be loaded on {device}: {describe(error)}") from error


def _plan(suite: Suite, settings: Settings, tag: str, failures: Failures, processes: Processes) -> Plan | None:
    """Read and check a suite and its earlier results; None if it failed."""
    with failures.of(suite.name) as sharing:
        tasks = _in_turn(sharing, lambda: _read(settings, suite))
        places = [
            Place(results.path(settings.output, suite.name, task.name, settings.model, tag), task, settings.model, tag)
            for task in tasks
        ]
        earlier = [_or_again(processes, place.read) for place in places]
        plan = Plan(suite, tasks, places, [results.data_fingerprint(task) for task in tasks], earlier)
    return None if suite.name in failures else plan


def _with_due(plan: Plan, encoder: Encoder, failures: Failures, processes: Processes) -> Plan | None:
    """Add the places without a result of this model; None if one holds another model's result, which would be lost."""
    with failures.of(plan.suite.name):
        due = []
        for place, earlier, data in zip(plan.places, plan.earlier, plan.data, strict=True):
            if _or_again(processes, place.is_current, earlier, encoder.weights, data):
                _say(processes, f"{place.task.name}: {place.path} is there already")
            else:
                due.append(place)
        plan = replace(plan, due=tuple(due))
    return None if plan.suite.name in failures else plan


def _or_again(processes: Processes, check: Callable, *asked: Any) -> Any:
    """The value of a check of an earlier result; for one without its figures, None and a printed line."""
    try:
        return check(*asked)
    except UnfinishedError as error:
        _say(processes, f"{error}: scoring it again from the stored features")
        return None


def _in_turn(processes: Processes, read: Callable[[], list[Task]]) -> list[Task]:
    """Let the first process read alone: it may draw, unpack or write files that the others then find."""
    if not processes.is_main:
        processes.collect([])
    found = read()
    if processes.is_main:
        processes.collect([])
    return found


def _read(settings: Settings, suite: Suite) -> list[Task]:
    suite.prepare(settings.data_root, settings.scene_pictures)
    tasks = list(suite.read(settings.data_root))
    layouts.check_scorable(tasks)
    if not settings.subset:
        layouts.check_counts(tasks, suite.counts)
    return tasks


def _evaluate(plan: Plan, encoder: Encoder, settings: Settings, processes: Processes) -> None:
    """Embed all data sets of the suite together, so that features don't depend on which are due; score the due ones."""
    if not plan.due:
        return
    _say(processes, f"{plan.suite.name}: {', '.join(place.task.name for place in plan.due)}")
    cache = FeatureCache(_features(settings), processes, settings.part)
    images, texts = embed_tasks(encoder, cache, plan.tasks, settings.batch_size, settings.num_workers)
    for place, data in zip(plan.places, plan.data, strict=True):
        if processes.is_main and place in plan.due:
            details = {"command": settings.command, "data": data}
            details["subset"] = bool(layouts.unpublished_counts(place.task, plan.suite.counts))
            _score(place, plan.suite, encoder, images, texts[place.task.name], details)


def _score(
    place: Place, suite: Suite, encoder: Encoder, images: Embedded, texts: Embedded, details: dict[str, Any]
) -> None:
    metrics = place.task.score(images, texts)
    details |= _cost(place.task, images, texts)
    results.write(place.path, suite.name, place.task, encoder, metrics, details)
    print(f"{place.task.name}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()), flush=True)


def _cost(task: Task, images: Embedded, texts: Embedded) -> dict[str, float | int]:
    """The cost of a data set: its share of the seconds spent on the features when they were computed."""
    count, seconds = len(set(task.pictures)), images.share(task.pictures)
    return {
        "images": count,
        "images_per_second": count / seconds if seconds else 0.0,
        "seconds": seconds + texts.share(task.texts),
    }


def _say(processes: Processes, line: str) -> None:
    if processes.is_main:
        print(line, flush=True)


def _report(failures: Failures, reported: int, processes: Processes) -> int:
    """Print new failures early, since the other suites may take hours; returns how many suites failed."""
    if len(failures) > reported and processes.is_main:
        print(f"left out; the other suites continue:\n{failures.error()}", file=sys.stderr, flush=True)
    return len(failures)
