"""Result files of `vladva-benchmark run` and of clip_benchmark, read, checked and grouped by model."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vladva_benchmarks.suites.result_format import FORMAT, OURS, TYPES
from vladva_clip.interface.arguments import is_unicode
from vladva_clip.sources import registry
from vladva_clip.storage import json_files

UNTAGGED = "laion400m_e32"  # clip_benchmark's --pretrained when none is given; our models load their default tag then
PAPERS_NAMES = {  # Hub id -> the LVLM's name in the paper
    "llava-hf/llava-1.5-7b-hf": "LLaVA-1.5-7B",
    "llava-hf/llava-1.5-13b-hf": "LLaVA-1.5-13B",
    "Qwen/Qwen2-VL-2B-Instruct": "Qwen2-VL-2B",
}
NOCAPS_DOMAINS = [f"nocaps/{domain}-domain" for domain in ("in", "near", "out")]
NOCAPS_MEAN = "nocaps/mean"
_TASKS = ("zeroshot_classification", "zeroshot_retrieval", "image_caption_selection")  # those of the paper's figures
_LIMITS = json_files.Limits(lenient=True)  # clip_benchmark writes NaN for acc5 of four classes
_ROUNDING = 1e-6  # clip_benchmark's fractions were float32


@dataclass(frozen=True)
class Result:
    """One result file. `details` is the value of our own key, None in clip_benchmark's own files."""

    path: Path
    dataset: str  # followed by task and language if they aren't the paper's
    model: str
    pretrained: str
    metrics: dict[str, float]  # fractions, for metrics in the paper's tables
    details: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The model and its tag; a source such as `local-dir:PATH` has no tag."""
        return f"{self.model} {self.pretrained}".strip()

    @property
    def base(self) -> str | None:
        """Hub id of the model's LVLM; None if it has none or it is unknown."""
        if self.details is not None and "base" in self.details:
            return self.details["base"]
        known = registry.ALIASES.get(self.model, self.model)
        return registry.MODELS[known].base if known in registry.MODELS else None

    @property
    def training_free(self) -> bool:
        """Whether the model is a bare LVLM with hand-written prompts."""
        if self.details is not None:
            return bool(self.details.get("training_free"))
        entry = registry.MODELS.get(registry.ALIASES.get(self.model, self.model))
        embedder = entry is not None and entry.profile is not None
        return self.base is not None and not embedder and self.pretrained in (registry.TRAINING_FREE, UNTAGGED)

    @property
    def partial(self) -> bool:
        """Whether the data's size differs from the published one, which `--subset` allowed."""
        return bool((self.details or {}).get("subset"))

    def value(self, metric: str) -> float | None:
        """Return a metric in [0, 1], or None if it wasn't measured or is NaN (acc5 of four classes).

        Raises:
            ValueError: the value is not a fraction from 0 to 1.
        """
        found = self.metrics.get(metric, math.nan)
        if math.isnan(found):
            return None
        if not 0 <= found <= 1:
            raise ValueError(f"{self.path}: {metric} is {found!r}, expected a fraction from 0 to 1; measure it again")
        return found


@dataclass(frozen=True)
class Row:
    """A model, ours or another, with all its results by data set. `sources` are the files as they were read."""

    results: dict[str, Result] = field(default_factory=dict)
    sources: list[Result] = field(default_factory=list)

    @property
    def any(self) -> Result:
        """One of the results, for properties that all of them share."""
        return self.sources[0]

    @property
    def reference(self) -> str | None:
        """The paper's own row of this model, None if there is none."""
        name = PAPERS_NAMES.get(self.any.base or "")
        return name if name is None or self.any.training_free else f"VladVA ({name})"

    @property
    def name(self) -> str:
        """The row's name: the paper's if the model is training-free and the paper has it."""
        if not self.any.training_free:
            return self.any.name
        return (
            f"{self.reference}, training-free ({self.any.name})"
            if self.reference
            else f"{self.any.name}, training-free"
        )

    @property
    def partial(self) -> bool:
        """Whether the size of any data set differs from the published one."""
        return any(result.partial for result in self.sources)

    def parts(self, dataset: str) -> list[Result]:
        """Return the results whose mean is a data set's figure: three for nocaps' mean. Empty if one is missing."""
        names = NOCAPS_DOMAINS if dataset == NOCAPS_MEAN and dataset not in self.results else [dataset]
        return [self.results[name] for name in names] if self.results.keys() >= set(names) else []

    def value(self, dataset: str, metric: str) -> float | None:
        """Return a metric of a data set, or None if it wasn't measured.

        Raises:
            ValueError: a value is not a fraction from 0 to 1.
        """
        values = [result.value(metric) for result in self.parts(dataset)]
        return None if not values or None in values else sum(values) / len(values)


def find(places: Iterable[Path]) -> list[Path]:
    """Return the given files, and the JSON files of given directories in the order of their names; each once.

    Raises:
        ValueError: a directory without JSON files.
    """
    found: dict[Path, None] = {}
    for place in places:
        files = sorted(place.glob("*.json")) if place.is_dir() else [place]
        if not files:
            raise ValueError(
                f"{place} has no result files (*.json), expected at least one; give the --output of "
                "vladva-benchmark run"
            )
        found |= dict.fromkeys(files)
    return list(found)


def read(path: Path) -> Result:
    """Read a result file.

    Raises:
        ValueError: a missing file, or one that is not JSON, not a result, or a result of another format.
    """
    try:
        data = json_files.read(path, _LIMITS)
    except ValueError as error:
        raise ValueError(f"{error}; measure it again, or give only result files") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, expected a result: an object with keys")
    texts = {name: data.get(name) for name in ("dataset", "model", "pretrained", "task")}
    for name, value in texts.items():
        if not isinstance(value, str) or not is_unicode(value):
            raise ValueError(f"{path} is not a result file: {name} is {value!r:.60}, expected a string")
    texts["dataset"] = _dataset(texts["dataset"], texts.pop("task"), data.get("language"))
    details = _details(path, data)
    return Result(path, metrics=_metrics(path, data.get("metrics"), ours=details is not None), details=details, **texts)


def _dataset(name: str, task: str, language: Any) -> str:
    """Name a data set. Each of clip_benchmark's other tasks and languages on it counts as another data set."""
    more = [task] if task not in _TASKS else []
    more += [language] if isinstance(language, str) and language != "en" else []
    return ", ".join([name.removeprefix("wds/"), *more])  # wds/: clip_benchmark's prefix for WebDatasets


def _metrics(path: Path, metrics: Any, ours: bool) -> dict[str, float]:
    """Return the numbers among a result's metrics. There must be one, and none of ours may be NaN."""
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"{path} is not a result file: metrics is {metrics!r:.60}, expected an object of numbers")
    for name, value in metrics.items():
        if not isinstance(value, int | float):
            raise ValueError(f"{path}: the metric {name} is {value!r:.60}, expected a number")
    # clip_benchmark's linear probe has a boolean setting among its metrics
    numbers = {name: float(value) for name, value in metrics.items() if not isinstance(value, bool)}
    if not numbers or (ours and not all(map(math.isfinite, numbers.values()))):
        raise ValueError(f"{path}: metrics is {metrics!r:.100}, expected finite numbers; measure it again")
    return numbers


def _details(path: Path, data: dict[str, Any]) -> dict[str, Any] | None:
    if OURS not in data:
        return None
    details = data[OURS]
    version = details.get("format") if isinstance(details, dict) else None
    if version != FORMAT:
        raise ValueError(
            f"{path} is a result of format {version!r}, expected {FORMAT}: measure it again with "
            "vladva-benchmark run, or make the report with the version that wrote it"
        )
    for name, kind in TYPES.items():
        if name in details and not _is(details[name], kind):
            raise ValueError(
                f"{path}: {name} of {OURS} is {details[name]!r:.60}, which has the wrong type; measure it again with "
                "vladva-benchmark run"
            )
    return details


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether a value has a type. A bool is not a number, and a list must hold strings (the words of a command)."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) and (kind is not list or all(isinstance(word, str) for word in value))


def rows(results: Iterable[Result]) -> list[Row]:
    """Group results by model and tag, in the given order; an alias counts as the model it stands for.

    Raises:
        ValueError: two different figures for the same thing, or one name for two models' weights.
    """
    found: dict[tuple[str, str], Row] = {}
    for result in results:
        row = found.setdefault((registry.ALIASES.get(result.model, result.model), result.pretrained), Row())
        _refuse_other_weights(row, result)
        row.sources.append(result)
        earlier = row.results.get(result.dataset)
        row.results[result.dataset] = result if earlier is None else _merged(earlier, result)
    return list(found.values())


def _merged(earlier: Result, result: Result) -> Result:
    """Merge two results that agree in common metrics; ours take precedence over clip_benchmark's, which say less."""
    _refuse_other_data(earlier, result)
    for name in earlier.metrics.keys() & result.metrics.keys():
        before, now = earlier.metrics[name], result.metrics[name]
        if not (abs(before - now) <= _ROUNDING or (math.isnan(before) and math.isnan(now))):
            raise ValueError(
                f"{earlier.path} and {result.path} have different figures for {result.name} on {result.dataset} "
                f"({name} {before:.4f} and {now:.4f}): give only one of them"
            )
    kept, other = (result, earlier) if earlier.details is None else (earlier, result)
    return replace(kept, metrics=other.metrics | kept.metrics)


def _refuse_other_data(earlier: Result, result: Result) -> None:
    """Refuse two of our results on one data set if their pictures or texts differ, or one covers only a part."""
    for what in ("data", "subset", "counts"):
        before, now = ((one.details or {}).get(what) for one in (earlier, result))
        if None not in (before, now) and before != now:
            raise ValueError(
                f"{earlier.path} and {result.path} are results of {result.name} on {result.dataset}, but on different "
                f"data ({what} {before} and {now}): give only one of them"
            )


def _refuse_other_weights(row: Row, result: Result) -> None:
    for earlier in row.sources:
        before, now = ((one.details or {}).get("weights") for one in (earlier, result))
        if before and now and before != now:
            raise ValueError(
                f"{earlier.path} and {result.path} name the same model, {result.name}, but were measured with "
                f"different weights or precisions ({before} and {now}): report them separately"
            )
