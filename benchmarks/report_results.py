"""Result files of `vladva-benchmark run` and of clip_benchmark, read, checked and put together by model."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vladva_benchmarks.result_format import FORMAT, OURS
from vladva_clip import registry

UNTAGGED = "laion400m_e32"  # clip_benchmark's --pretrained when none is given; our models load their default tag then
PAPERS_NAMES = {  # the LVLMs of the paper's rows
    "llava-hf/llava-1.5-7b-hf": "LLaVA-1.5-7B",
    "llava-hf/llava-1.5-13b-hf": "LLaVA-1.5-13B",
    "Qwen/Qwen2-VL-2B-Instruct": "Qwen2-VL-2B",
}
NOCAPS_DOMAINS = [f"nocaps/{domain}-domain" for domain in ("in", "near", "out")]
NOCAPS_MEAN = "nocaps/mean"


@dataclass(frozen=True)
class Result:
    """One result file. `details` is what stands under our own key, None in clip_benchmark's own files."""

    path: Path
    dataset: str
    model: str
    pretrained: str
    task: str
    metrics: dict[str, float]  # fractions where a table of the paper has them
    details: dict[str, Any] | None

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


@dataclass(frozen=True)
class Row:
    """A model of ours or a rival, with all its results by data set."""

    results: dict[str, Result] = field(default_factory=dict)

    @property
    def any(self) -> Result:
        """One of the results, for what all of them share."""
        return next(iter(self.results.values()))

    @property
    def reference(self) -> str | None:
        """The paper's own row of this model; None where it has none."""
        name = PAPERS_NAMES.get(self.any.base or "")
        return name if name is None or self.any.training_free else f"VladVA ({name})"

    @property
    def name(self) -> str:
        """The row's name: the paper's where the model is training-free and the paper has it."""
        model = f"{self.any.model} {self.any.pretrained}"
        if not self.any.training_free:
            return model
        return f"{self.reference}, training-free ({model})" if self.reference else f"{model}, training-free"

    @property
    def partial(self) -> bool:
        """Whether a data set was taken that isn't of the published size."""
        return any((result.details or {}).get("subset") for result in self.results.values())

    def value(self, dataset: str, metric: str) -> float | None:
        """A metric in [0, 1]; None where it wasn't measured or is no number (acc5 of four classes).

        Raises:
            ValueError: a value that is no fraction.
        """
        if dataset == NOCAPS_MEAN and dataset not in self.results:
            parts = [self.value(domain, metric) for domain in NOCAPS_DOMAINS]
            return None if None in parts else sum(parts) / len(parts)
        if dataset not in self.results or metric not in self.results[dataset].metrics:
            return None
        found, path = self.results[dataset].metrics[metric], self.results[dataset].path
        if math.isnan(found):
            return None
        if not 0 <= found <= 1:
            raise ValueError(f"{path}: {metric} is {found!r}, expected a fraction from 0 to 1; measure it again")
        return found


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
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON ({error}); measure it again, or name only result files") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, expected a result: an object with keys")
    texts = {name: data.get(name) for name in ("dataset", "model", "pretrained", "task")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"{path} is no result file: {name} is {value!r:.60}, expected a string")
    texts["dataset"] = texts["dataset"].removeprefix("wds/")  # clip_benchmark's mark of a WebDataset
    return Result(path, metrics=_metrics(path, data.get("metrics")), details=_details(path, data), **texts)


def _metrics(path: Path, metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"{path} is no result file: metrics is {metrics!r:.60}, expected an object of numbers")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: the metric {name} is {value!r:.60}, expected a number")
    return {name: float(value) for name, value in metrics.items()}


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
    return details


def rows(results: Iterable[Result]) -> list[Row]:
    """Put results together by model and tag, in the order they come.

    Raises:
        ValueError: a data set twice with other figures, or one name with two models' weights.
    """
    found: dict[tuple[str, str], Row] = {}
    for result in results:
        row = found.setdefault((result.model, result.pretrained), Row())
        if row.results:
            _refuse_other_weights(row, result)
        earlier = row.results.setdefault(result.dataset, result)
        if earlier.metrics != result.metrics:
            raise ValueError(
                f"{earlier.path} and {result.path} hold other figures of {result.model} {result.pretrained} on "
                f"{result.dataset}: name one of them only"
            )
    return list(found.values())


def _refuse_other_weights(row: Row, result: Result) -> None:
    for earlier in row.results.values():
        before, now = ((one.details or {}).get("weights") for one in (earlier, result))
        if before and now and before != now:
            raise ValueError(
                f"{earlier.path} and {result.path} name the same model, {result.model} {result.pretrained}, but were "
                f"measured with other weights ({before} and {now}): report them apart"
            )
