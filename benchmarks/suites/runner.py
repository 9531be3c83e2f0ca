"""Suites from data root to result files: everything is checked before a model loads, nothing is computed twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vladva_benchmarks import files
from vladva_benchmarks.suites import catalog, drawn_scenes, layouts, models, results
from vladva_benchmarks.suites.catalog import Suite
from vladva_benchmarks.suites.encoding import Embedded, embed_classes, embed_pictures, embed_texts
from vladva_benchmarks.suites.feature_cache import PART, FeatureCache, UnreadableItems
from vladva_benchmarks.suites.models import Encoder
from vladva_benchmarks.suites.tasks import Classification, Task
from vladva_clip import devices
from vladva_training.distributed import Processes

Planned = list[tuple[Suite, list[Task]]]


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


def run(settings: Settings) -> list[Path]:
    """Evaluate a model on suites; the result files, in the order of the suites.

    Raises:
        ValueError: whatever is missing, wrong or can't be written, and what to do; what was finished before is kept.
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
    planned = _in_turn(processes, lambda: _read(settings, suites))
    places = {
        (suite.name, task.name): results.path(settings.output, suite.name, task.name, settings.model, tag)
        for suite, tasks in planned
        for task in tasks
    }
    earlier = {place: results.read(place) for place in places.values()}  # another version's stops us before the model
    if processes.is_main and None in earlier.values():
        files.check_writable(settings.output)
    encoder = models.load(settings.model, tag, device, settings.precision, settings.cache_dir)
    data = {task.name: results.data_fingerprint(task) for _, tasks in planned for task in tasks}
    done = {
        place
        for (_, name), place in places.items()
        if results.is_current(earlier[place], place, encoder.weights, data[name])
    }
    wrong = []
    for suite, tasks in planned:
        due = _due({task.name: places[suite.name, task.name] for task in tasks}, done, processes)
        try:
            _evaluate(suite, tasks, due, data, encoder, settings, processes)
        except UnreadableItems as error:  # which cost the user this suite, and not the next
            wrong.append(f"{suite.name}: {error}")
    if wrong:
        raise ValueError("\n".join([*wrong, "then the same command goes on with what is missing"]))
    return list(places.values())


def _due(places: dict[str, Path], done: set[Path], processes: Processes) -> dict[str, Path]:
    """Those data sets that have no result yet."""
    for name, place in places.items():
        if place in done:
            _say(processes, f"{name}: {place} is there already")
    return {name: place for name, place in places.items() if place not in done}


def _in_turn(processes: Processes, read: Callable[[], Planned]) -> Planned:
    """Let the first process read alone: it may draw, unpack or write what the others then find."""
    if not processes.is_main:
        processes.wait()
    found = read()
    if processes.is_main:
        processes.wait()
    return found


def _read(settings: Settings, suites: list[Suite]) -> Planned:
    """Read and check every suite; one that is wrong does not hide what is wrong with the next."""
    planned, wrong = [], []
    for suite in suites:
        try:
            if suite.name == catalog.SCENES:
                drawn_scenes.export(settings.data_root, settings.scene_pictures)
            tasks = list(suite.read(settings.data_root))
            layouts.check_scorable(tasks)
            if not settings.subset:
                layouts.check_counts(tasks, suite.counts)
            planned.append((suite, tasks))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    return planned


def _evaluate(
    suite: Suite,
    tasks: list[Task],
    due: dict[str, Path],
    data: dict[str, str],
    encoder: Encoder,
    settings: Settings,
    processes: Processes,
) -> None:
    """Embed what the suite's data sets need together, the same whichever are due; score those and write them down."""
    if not due:
        return
    _say(processes, f"{suite.name}: {', '.join(due)}")
    cache = FeatureCache(settings.features or settings.output / "features", processes, settings.part)
    pictures = [picture for task in tasks for picture in task.pictures]
    images = embed_pictures(encoder, cache, pictures, settings.batch_size, settings.num_workers)
    texts = _embed_texts(tasks, encoder, cache, settings.batch_size)
    if processes.is_main:
        for task in tasks:
            if task.name not in due:
                continue
            metrics = task.score(images, texts[task.name])
            subset = bool(layouts.unpublished_counts(task, suite.counts))
            details = {"command": settings.command, "subset": subset, "data": data[task.name]}
            details |= _cost(task, images, texts[task.name])
            results.write(due[task.name], suite.name, task, encoder, metrics, details)
            print(f"{task.name}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()), flush=True)
    processes.wait()


def _embed_texts(tasks: list[Task], encoder: Encoder, cache: FeatureCache, batch_size: int) -> dict[str, Embedded]:
    """Features of each data set's texts: classes are each data set's own, all other texts are embedded together."""
    named = [task for task in tasks if isinstance(task, Classification)]
    found = {task.name: embed_classes(encoder, cache, task.classnames, task.templates) for task in named}
    others = [task for task in tasks if task.name not in found]
    if others:
        texts = embed_texts(encoder, cache, [text for task in others for text in task.texts], batch_size)
        found |= {task.name: texts for task in others}
    return found


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
