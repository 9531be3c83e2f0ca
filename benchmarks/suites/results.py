"""Result files: clip_benchmark's JSON with one more key, `vladva`, that says how the figures came about."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vladva_benchmarks import files
from vladva_benchmarks.gauges import hardware, versions
from vladva_benchmarks.suites.models import Encoder
from vladva_benchmarks.suites.pictures import stamps
from vladva_benchmarks.suites.result_format import FORMAT, OURS
from vladva_benchmarks.suites.tasks import Task
from vladva_clip.storage import json_files, plain_files

LONGEST = 200  # signs of a result's name; file systems end at 255, with what is put around it
ELSEWHERE = "move it away or name another --output"
_PACKAGES = ("vladva-clip", "torch", "torchvision", "transformers", "open_clip_torch", "clip-benchmark", "numpy")


def path(output: Path, suite: str, dataset: str, model: str, pretrained: str) -> Path:
    """Return the place of a result, whose name holds no `/`; a long name ends in a hash of itself."""
    name = "_".join((suite, dataset, model, pretrained))
    short = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    if len(short) > LONGEST:
        short = f"{short[: LONGEST - 13]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return output / f"{short}.json"


class UnfinishedError(ValueError):
    """A result that lacks its figures: nothing is lost when it is written again."""


@dataclass(frozen=True)
class Place:
    """Where the result of one data set goes, and whose it must be."""

    path: Path
    task: Task
    model: str
    pretrained: str

    def read(self) -> dict[str, Any] | None:
        """Return an earlier result with all its figures, None where there is none.

        Raises:
            UnfinishedError: empty, cut, or a result of this version without the figures that the data set has.
            ValueError: not a regular file, a result of another version, of another data set or of another model.
        """
        if not os.path.lexists(self.path):
            return None
        result = _parsed(self.path)
        _check_format(result, self.path)
        for key, wanted in (("dataset", self.task.name), ("model", self.model), ("pretrained", self.pretrained)):
            if result.get(key) != wanted:
                raise ValueError(f"{self.path} is of the {key} {result.get(key)!r:.200}, now {wanted!r}: {ELSEWHERE}")
        if wrong := unfinished(result.get("metrics"), self.task.metrics):
            raise UnfinishedError(f"{self.path} {wrong}")
        return result

    def is_current(self, result: dict[str, Any] | None, weights: str, data: str) -> bool:
        """Whether what `read` returned is of these weights and these data.

        Raises:
            UnfinishedError: it counts other items than there are in the same data.
            ValueError: it is of others: it would be lost.
        """
        if result is None:
            return False
        for what, now in (("weights", weights), ("data", data)):
            if result[OURS].get(what) != now:
                shown = "weights or of another precision" if what == "weights" else what
                found = f"{self.path} holds figures of other {shown} ({result[OURS].get(what)}, now {now})"
                raise ValueError(f"{found}: {ELSEWHERE}")
        if result[OURS].get("counts") != self.task.counts():
            raise UnfinishedError(f"{self.path} counts {result[OURS].get('counts')}, not {self.task.counts()}")
        return True


def unfinished(metrics: Any, names: Sequence[str]) -> str | None:
    """Say what a result's metrics lack of those that its data set has; None where each is a fraction."""
    if not isinstance(metrics, dict) or not metrics:
        return f"has {metrics!r:.60} for metrics"
    if set(metrics) != set(names):
        return f"has the metrics {', '.join(map(str, metrics)):.200}, not {', '.join(names)}"
    wrong = [name for name in names if type(metrics[name]) not in (int, float) or not 0 <= metrics[name] <= 1]
    return f"has {metrics[wrong[0]]!r:.60} for {wrong[0]}" if wrong else None


def _parsed(path: Path) -> Any:
    try:
        content = plain_files.read_bytes(path)
    except OSError as error:
        raise ValueError(f"{path} can't be read as a result ({plain_files.said(error)}): {ELSEWHERE}") from error
    try:
        return json_files.parse(content)
    except ValueError as error:
        raise UnfinishedError(f"{path} is empty, cut or damaged ({error})") from error


def _check_format(result: Any, path: Path) -> None:
    ours = result.get(OURS) if isinstance(result, dict) else None
    found = ours.get("format") if isinstance(ours, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} is a result of format {found!r:.60}, this version writes {FORMAT}: {ELSEWHERE}")


def data_fingerprint(task: Task) -> str:
    """Return a sha256 of what is evaluated: the pictures by name and bytes, the texts, and how they belong together."""
    more = [getattr(task, name, None) for name in ("labels", "templates", "captions")]
    text = json.dumps([task.name, task.counts(), stamps(task.pictures), task.texts, *more])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def write(
    place: Path, suite: str, task: Task, encoder: Encoder, metrics: dict[str, float], details: dict[str, Any]
) -> None:
    """Write a result.

    Args:
        place: of `path`.
        suite: the suite's name.
        task: the data set.
        encoder: the model.
        metrics: name -> fraction.
        details: further entries of our key: `command`, `seconds`, `images`, `images_per_second`, `data`, `subset`.

    Raises:
        ValueError: a place that can't be written.
    """
    ours = {
        "format": FORMAT,
        "suite": suite,
        "versions": versions(*_PACKAGES),
        "hardware": hardware(encoder.device),
        "training_free": encoder.training_free,
        "base": encoder.base,
        "weights": encoder.weights,
        "counts": task.counts(),
        **details,
    }
    result = {"dataset": task.name, "model": encoder.name, "pretrained": encoder.pretrained, "task": task.task}
    result |= {"metrics": metrics, "language": "en", OURS: ours}
    files.write(place, (json.dumps(result, indent=1) + "\n").encode())
