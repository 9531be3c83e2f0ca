"""Result files: clip_benchmark's JSON with one more key, `vladva`, which records how the figures were computed."""

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

LONGEST = 200  # characters of a result's name; file systems allow 255, with suffixes
ELSEWHERE = "move it away or name another --output"
_PACKAGES = ("vladva-clip", "torch", "torchvision", "transformers", "open_clip_torch", "clip-benchmark", "numpy")


def path(output: Path, suite: str, dataset: str, model: str, pretrained: str) -> Path:
    """Return the path of a result. Its name has no `/`; a long name is cut and ends in a hash of the whole."""
    name = "_".join((suite, dataset, model, pretrained))
    short = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    if len(short) > LONGEST:
        short = f"{short[: LONGEST - 13]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return output / f"{short}.json"


class UnfinishedError(ValueError):
    """A result without its figures: nothing is lost by writing it again."""


@dataclass(frozen=True)
class Place:
    """Where the result of one data set goes, and which model it must be of."""

    path: Path
    task: Task
    model: str
    pretrained: str

    def read(self) -> dict[str, Any] | None:
        """Return an earlier result with all its figures, None if there is none.

        Raises:
            UnfinishedError: it is empty, truncated, or lacks figures of the data set.
            ValueError: it is not a regular file, or of another version, data set or model.
        """
        if not os.path.lexists(self.path):
            return None
        result = _parsed(self.path)
        _check_format(result, self.path)
        for key, wanted in (("dataset", self.task.name), ("model", self.model), ("pretrained", self.pretrained)):
            if result.get(key) != wanted:
                raise ValueError(f"{self.path} has the {key} {result.get(key)!r:.200}, now {wanted!r}: {ELSEWHERE}")
        if wrong := unfinished(result.get("metrics"), self.task.metrics):
            raise UnfinishedError(f"{self.path} {wrong}")
        return result

    def is_current(self, result: dict[str, Any] | None, weights: str, data: str) -> bool:
        """Whether a result from `read` has these weights and this data.

        Raises:
            UnfinishedError: its counts differ from those of the same data.
            ValueError: it has other weights or data, so writing over it would lose it.
        """
        if result is None:
            return False
        for what, now in (("weights", weights), ("data", data)):
            if result[OURS].get(what) != now:
                shown = "weights or of another precision" if what == "weights" else what
                found = f"{self.path} holds figures of other {shown} ({result[OURS].get(what)}, now {now})"
                raise ValueError(f"{found}: {ELSEWHERE}")
        if result[OURS].get("counts") != self.task.counts():
            raise UnfinishedError(
                f"{self.path} has the counts {result[OURS].get('counts')}, expected {self.task.counts()}"
            )
        return True


def unfinished(metrics: Any, names: Sequence[str]) -> str | None:
    """Describe what is wrong with a result's metrics; None if each metric of the data set is a fraction."""
    if not isinstance(metrics, dict) or not metrics:
        return f"has {metrics!r:.60} as metrics"
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
        raise UnfinishedError(f"{path} is empty, truncated or damaged ({error})") from error


def _check_format(result: Any, path: Path) -> None:
    ours = result.get(OURS) if isinstance(result, dict) else None
    found = ours.get("format") if isinstance(ours, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has the result format {found!r:.60}, this version writes {FORMAT}: {ELSEWHERE}")


def data_fingerprint(task: Task) -> str:
    """Return a sha256 of what is evaluated: names and bytes of pictures, texts, and how they belong together."""
    more = [getattr(task, name, None) for name in ("labels", "templates", "captions")]
    text = json.dumps([task.name, task.counts(), stamps(task.pictures), task.texts, *more])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def write(
    place: Path, suite: str, task: Task, encoder: Encoder, metrics: dict[str, float], details: dict[str, Any]
) -> None:
    """Write a result.

    Args:
        place: from `path`.
        suite: the suite's name.
        task: the data set.
        encoder: the model.
        metrics: name -> fraction.
        details: more entries of our key: `command`, `seconds`, `images`, `images_per_second`, `data`, `subset`.

    Raises:
        ValueError: the file can't be written.
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
