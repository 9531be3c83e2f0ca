"""Result files (clip_benchmark's JSON and our own) -> figures of a model card."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from vladva_clip.storage.config import read_json

SCENES = "drawn scenes (vladva_clip.scenes)"
_IDENTIFIERS = {SCENES: "vladva_scenes"}
_TASKS = {"zeroshot_retrieval": "image-text-retrieval", "zeroshot_classification": "zero-shot-image-classification"}


@dataclass(frozen=True)
class Figure:
    """One number: its task, data set, split and metric. `value` is the file's own."""

    task: str
    dataset: str
    split: str
    metric: str
    value: float

    @property
    def name(self) -> str:
        """Task and metric together, since the Hub keeps one list of metrics for each data set and split."""
        return f"{self.task}: {self.metric}"

    @property
    def text(self) -> str:
        """The value as a table shows it: losses unchanged, fractions in percent."""
        if "loss" in f"{self.task} {self.metric}" or not 0 <= self.value <= 1:
            return f"{self.value:.3f}"
        return f"{self.value:.1%}"


def read_results(path: Path) -> list[Figure]:
    """Read one result file.

    Three forms are supported: clip_benchmark's results (`dataset`, `task`, `metrics`), the reports of
    `vladva_training.tiny.evaluate` ("title, split" -> name -> number), and the reports with `figures` (split -> task ->
    metric -> number) of `vladva-benchmark miniature`.

    Raises:
        ValueError: not JSON, not one of these forms, no figures, or a figure that is not a finite number.
    """
    data = read_json(path)
    try:
        found = list(_figures(data))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; measure it again") from error
    if not found:
        raise ValueError(
            f"{path} has no figures: expected a result of clip_benchmark (dataset, task, metrics), a report of "
            'vladva_training.tiny.evaluate ("title, split" with numbers), or one with figures by split and task'
        )
    return found


def refuse_twice(figures: list[Figure]) -> None:
    """Refuse two values for one figure, such as an adapter's and its base's.

    Raises:
        ValueError: the message names the figure.
    """
    seen = set()
    for figure in figures:
        key = (figure.dataset, figure.split, figure.name)
        if key in seen:
            raise ValueError(
                f"two result files have {figure.name!r:.120} on {figure.dataset}, {figure.split}: name the ones that "
                "belong to this model with --results"
            )
        seen.add(key)


def eval_results(figures: list[Figure]) -> list[EvalResult]:
    """Return figures as the Hub's `EvalResult`, from which it makes a card's `model-index`."""
    return [
        EvalResult(
            task_type=_TASKS.get(figure.task, "image-feature-extraction"),
            dataset_type=_IDENTIFIERS.get(figure.dataset) or _identifier(figure.dataset),
            dataset_name=figure.dataset,
            dataset_split=figure.split or None,
            metric_type=_identifier(figure.metric),
            metric_name=figure.name,
            metric_value=round(figure.value, 4),
        )
        for figure in figures
    ]


def tables(figures: list[Figure]) -> str:
    """Return one Markdown table per data set, with a column per split."""
    parts = []
    for dataset in dict.fromkeys(figure.dataset for figure in figures):
        own = [figure for figure in figures if figure.dataset == dataset]
        splits = list(dict.fromkeys(figure.split for figure in own))
        heads = [f"`{_plain(split)}`" if split else "" for split in splits]
        lines = [f"On {_plain(dataset)}:", "", f"| | {' | '.join(heads)} |", "|---" * (len(splits) + 1) + "|"]
        for name in dict.fromkeys(figure.name for figure in own):
            found = {figure.split: figure.text for figure in own if figure.name == name}
            lines.append(f"| {_plain(name)} | {' | '.join(found.get(split, '-') for split in splits)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _plain(name: str) -> str:
    """Return a name as the text of a table cell: one line, whatever the file contains."""
    text = "".join(sign if sign.isprintable() else " " for sign in name[:200])
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _figures(data: dict[str, Any]) -> Iterator[Figure]:
    if "metrics" in data and "dataset" in data:
        yield from _clip_benchmark(data)
    elif isinstance(data.get("figures"), dict):
        yield from _by_split(data["figures"])
    else:
        yield from _titled(data)


def _clip_benchmark(data: dict[str, Any]) -> Iterator[Figure]:
    dataset = str(data["dataset"]).removeprefix("wds/")
    for metric, value in _numbers(data["metrics"]):
        yield Figure(str(data.get("task", "")), dataset, "test", metric, value)


def _by_split(figures: dict[str, Any]) -> Iterator[Figure]:
    for split, tasks in figures.items():
        for task, metrics in tasks.items() if isinstance(tasks, dict) else ():
            for metric, value in _numbers(metrics):
                yield Figure(task, SCENES, split, metric, value)


def _titled(data: dict[str, Any]) -> Iterator[Figure]:
    for title, metrics in data.items():
        task, _, split = title.rpartition(", ")
        for metric, value in _numbers(metrics) if task else ():
            yield Figure(task, SCENES, split, metric, value)


def _numbers(metrics: Any) -> Iterator[tuple[str, float]]:
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        if isinstance(value, bool | str):
            continue  # a setting, as in clip_benchmark's linear probe, or a note
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"the metric {name!r:.80} is {value!r:.60}, expected a number")
        yield name, float(value)


def _identifier(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "@_.-" else "_" for sign in name.lower()).strip("_.-") or "value"
