"""Suites from data root to result files: everything is checked before a model loads, nothing is computed twice.

A suite that fails does not stop the next one: the failure is reported at once, and again at the end.
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
from vladva_benchmarks.suites.feature_cache import PART, FeatureCache
from vladva_benchmarks.suites.models import Encoder
from vladva_benchmarks.suites.results import Place, UnfinishedError
from vladva_benchmarks.suites.suite import Suite
from vladva_benchmarks.suites.tasks import Task
from vladva_clip.interface import devices
from vladva_training.processes.distributed import Processes
from vladva_training.processes.faults import Faults


@dataclass(frozen=True)
class Settings:
    """What `vladva-benchmark run` was asked for.

    suites: names of the catalog. features: None for a folder in `output`. scene_pictures: of each drawn data set.
    subset: take data sets of any size. part: items of a part of the feature cache. command: as it was typed.
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
    """A suite that has been read: its data sets, where their results go, and the earlier ones by place."""

    suite: Suite
    tasks: list[Task]
    places: list[Place]
    data: list[str]  # fingerprints
    earlier: list[dict[str, Any] | None]
    due: tuple[Place, ...] = ()  # known once the model is


def run(settings: Settings) -> list[Path]:
    """Evaluate a model on suites; the result files, in the order of the suites.

    Raises:
        ValueError: whatever is missing, wrong or can't be written, and what to do. All suites but those that it names
            have their results.
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
    told = _tell(failures, 0, processes)
    _check_output(plans, settings, processes)
    encoder = _load(settings, tag, device)
    plans = [plan for one in plans if (plan := _with_due(one, encoder, failures, processes))]
    _tell(failures, told, processes)
    for plan in plans:
        with failures.of(plan.suite.name) as sharing:
            _evaluate(plan, encoder, settings, sharing)
    if failures:
        raise failures.error()
    return [place.path for plan in plans for place in plan.places]


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
    """Read and check a suite, and what there is of its results; None where it failed."""
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
    """Add the places that have no result of this model yet; None where one has another's, which would be lost."""
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
    """What a check of an earlier result returns; None, and a line, for one that lacks its figures."""
    try:
        return check(*asked)
    except UnfinishedError as error:
        _say(processes, f"{error}: it is scored again, from the features that are kept")
        return None


def _in_turn(processes: Processes, read: Callable[[], list[Task]]) -> list[Task]:
    """Let the first process read alone: it may draw, unpack or write what the others then find."""
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
    """Embed what the suite's data sets need together, the same whichever are due; score those and write them down."""
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
    """What a data set cost: its share of the seconds that the features took when they were computed."""
    count, seconds = len(set(task.pictures)), images.share(task.pictures)
    return {
        "images": count,
        "images_per_second": count / seconds if seconds else 0.0,
        "seconds": seconds + texts.share(task.texts),
    }


def _say(processes: Processes, line: str) -> None:
    if processes.is_main:
        print(line, flush=True)


def _tell(failures: Failures, told: int, processes: Processes) -> int:
    """Say early, where that is news, what will be missing: the others may take hours. Returns how many failed."""
    if len(failures) > told and processes.is_main:
        print(f"left out, the other suites go on:\n{failures.error()}", file=sys.stderr, flush=True)
    return len(failures)
