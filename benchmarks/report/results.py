"""Result files of `vladva-benchmark run` and of clip_benchmark, read, checked and put together by model."""

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
PAPERS_NAMES = {  # the LVLMs of the paper's rows
    "llava-hf/llava-1.5-7b-hf": "LLaVA-1.5-7B",
    "llava-hf/llava-1.5-13b-hf": "LLaVA-1.5-13B",
    "Qwen/Qwen2-VL-2B-Instruct": "Qwen2-VL-2B",
}
NOCAPS_DOMAINS = [f"nocaps/{domain}-domain" for domain in ("in", "near", "out")]
NOCAPS_MEAN = "nocaps/mean"
_TASKS = ("zeroshot_classification", "zeroshot_retrieval", "image_caption_selection")  # the figures of the paper
_LIMITS = json_files.Limits(lenient=True)  # clip_benchmark writes NaN for acc5 of four classes
_ROUNDING = 1e-6  # clip_benchmark writes fractions that were float32


@dataclass(frozen=True)
class Result:
    """One result file. `details` is what stands under our own key, None in clip_benchmark's own files."""

    path: Path
    dataset: str  # with its task and language where they aren't the paper's
    model: str
    pretrained: str
    metrics: dict[str, float]  # fractions where a table of the paper has them
    details: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The model and its tag; a source, as `local-dir:PATH`, has none."""
        return f"{self.model} {self.pretrained}".strip()

    @property
    def base(self) -> str | None:
        """Hub id of the LVLM under the model; None where it has none or nothing says so."""
        if self.details is not None and "base" in self.details:
            return self.details["base"]
        known = registry.ALIASES.get(self.model, self.model)
        return registry.MODELS[known].base if known in registry.MODELS else None

    @property
    def training_free(self) -> bool:
        """Whether the model is a bare LVLM with hand-written prompts."""
        if self.details is not None:
            return bool(self.details.get("training_free"))
        return self.base is not None and self.pretrained in (registry.TRAINING_FREE, UNTAGGED)

    @property
    def partial(self) -> bool:
        """Whether `--subset` let data of other than the published size pass."""
        return bool((self.details or {}).get("subset"))

    def value(self, metric: str) -> float | None:
        """A metric in [0, 1]; None where it wasn't measured or is no number (acc5 of four classes).

        Raises:
            ValueError: a value that is no fraction.
        """
        found = self.metrics.get(metric, math.nan)
        if math.isnan(found):
            return None
        if not 0 <= found <= 1:
            raise ValueError(f"{self.path}: {metric} is {found!r}, expected a fraction from 0 to 1; measure it again")
        return found


@dataclass(frozen=True)
class Row:
    """A model of ours or a rival, with all its results by data set; `sources` are the files as they were read."""

    results: dict[str, Result] = field(default_factory=dict)
    sources: list[Result] = field(default_factory=list)

    @property
    def any(self) -> Result:
        """One of the results, for what all of them share."""
        return self.sources[0]

    @property
    def reference(self) -> str | None:
        """The paper's own row of this model; None where it has none."""
        name = PAPERS_NAMES.get(self.any.base or "")
        return name if name is None or self.any.training_free else f"VladVA ({name})"

    @property
    def name(self) -> str:
        """The row's name: the paper's where the model is training-free and the paper has it."""
        if not self.any.training_free:
            return self.any.name
        return (
            f"{self.reference}, training-free ({self.any.name})"
            if self.reference
            else f"{self.any.name}, training-free"
        )

    @property
    def partial(self) -> bool:
        """Whether a data set was taken that isn't of the published size."""
        return any(result.partial for result in self.sources)

    def parts(self, dataset: str) -> list[Result]:
        """The results whose mean is a data set's figure: three for nocaps' mean. Empty where one is missing."""
        names = NOCAPS_DOMAINS if dataset == NOCAPS_MEAN and dataset not in self.results else [dataset]
        return [self.results[name] for name in names] if self.results.keys() >= set(names) else []

    def value(self, dataset: str, metric: str) -> float | None:
        """A metric of a data set; None where it wasn't measured.

        Raises:
            ValueError: a value that is no fraction.
        """
        values = [result.value(metric) for result in self.parts(dataset)]
        return None if not values or None in values else sum(values) / len(values)


def find(places: Iterable[Path]) -> list[Path]:
    """Return the JSON files that paths name, those of a directory in the order of their names.

    Raises:
        ValueError: a path that doesn't exist, a directory without JSON files.
    """
    found: dict[Path, None] = {}
    for place in places:
        files = sorted(place.glob("*.json")) if place.is_dir() else [place]
        if not files:
            raise ValueError(f"{place} holds no result file (*.json); name the --output of vladva-benchmark run")
        found |= dict.fromkeys(files)
    return list(found)


def read(path: Path) -> Result:
    """Read a result file.

    Raises:
        ValueError: no such file, no JSON, no result, or a result of another format.
    """
    try:
        data = json_files.read(path, _LIMITS)
    except ValueError as error:
        raise ValueError(f"{error}; measure it again, or name only result files") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, expected a result: an object with keys")
    texts = {name: data.get(name) for name in ("dataset", "model", "pretrained", "task")}
    for name, value in texts.items():
        if not isinstance(value, str) or not is_unicode(value):
            raise ValueError(f"{path} is no result file: {name} is {value!r:.60}, expected a string")
    texts["dataset"] = _dataset(texts["dataset"], texts.pop("task"), data.get("language"))
    details = _details(path, data)
    return Result(path, metrics=_metrics(path, data.get("metrics"), ours=details is not None), details=details, **texts)


def _dataset(name: str, task: str, language: Any) -> str:
    """clip_benchmark evaluates one data set by several tasks and in several languages: each is a data set here."""
    more = [task] if task not in _TASKS else []
    more += [language] if isinstance(language, str) and language != "en" else []
    return ", ".join([name.removeprefix("wds/"), *more])  # clip_benchmark's mark of a WebDataset


def _metrics(path: Path, metrics: Any, ours: bool) -> dict[str, float]:
    """The numbers among a result's metrics, at least one; ours have nothing else, and no NaN among them."""
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"{path} is no result file: metrics is {metrics!r:.60}, expected an object of numbers")
    for name, value in metrics.items():
        if not isinstance(value, int | float):
            raise ValueError(f"{path}: the metric {name} is {value!r:.60}, expected a number")
    # clip_benchmark's linear probe has a setting among its metrics, which is a boolean
    numbers = {name: float(value) for name, value in metrics.items() if not isinstance(value, bool)}
    if not numbers or (ours and not all(map(math.isfinite, numbers.values()))):
        raise ValueError(f"{path} holds {metrics!r:.100} for metrics, expected numbers: measure it again")
    return numbers


def _details(path: Path, data: dict[str, Any]) -> dict[str, Any] | None:
    if OURS not in data:
        return None
    details = data[OURS]
    version = details.get("format") if isinstance(details, dict) else None
    if version != FORMAT:
        raise ValueError(
            f"{path} is a result of format {version!r}, this version reads {FORMAT}: measure it again with "
            "vladva-benchmark run, or make the report with the version that wrote it"
        )
    for name, kind in TYPES.items():
        if name in details and not _is(details[name], kind):
            raise ValueError(
                f"{path} has {details[name]!r:.60} for {name} of {OURS}: measure it again with vladva-benchmark run"
            )
    return details


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether a value has a type. A bool is not a number, and a list must hold strings (the words of a command)."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) and (kind is not list or all(isinstance(word, str) for word in value))


def rows(results: Iterable[Result]) -> list[Row]:
    """Put results together by model and tag, in the order they come; an alias is the model that it stands for.

    Raises:
        ValueError: a data set twice with other figures, or one name with two models' weights.
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
    """One result of two that agree in what both have; our own goes before clip_benchmark's, which says less."""
    _refuse_other_data(earlier, result)
    for name in earlier.metrics.keys() & result.metrics.keys():
        before, now = earlier.metrics[name], result.metrics[name]
        if not (abs(before - now) <= _ROUNDING or (math.isnan(before) and math.isnan(now))):
            raise ValueError(
                f"{earlier.path} and {result.path} hold other figures of {result.name} on {result.dataset} "
                f"({name} {before:.4f} and {now:.4f}): name one of them only"
            )
    kept, other = (result, earlier) if earlier.details is None else (earlier, result)
    return replace(kept, metrics=other.metrics | kept.metrics)


def _refuse_other_data(earlier: Result, result: Result) -> None:
    """Two results of our own on one data set are of the same pictures and texts, or one of them is a part's."""
    for what in ("data", "subset", "counts"):
        before, now = ((one.details or {}).get(what) for one in (earlier, result))
        if None not in (before, now) and before != now:
            raise ValueError(
                f"{earlier.path} and {result.path} are of {result.name} on {result.dataset}, but of other data ({what} "
                f"{before} and {now}): name one of them only"
            )


def _refuse_other_weights(row: Row, result: Result) -> None:
    for earlier in row.sources:
        before, now = ((one.details or {}).get("weights") for one in (earlier, result))
        if before and now and before != now:
            raise ValueError(
                f"{earlier.path} and {result.path} name the same model, {result.name}, but were measured with other "
                f"weights or in another precision ({before} and {now}): report them apart"
            )
