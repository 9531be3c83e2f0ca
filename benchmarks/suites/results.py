"""Result files: clip_benchmark's JSON with one more key, `vladva`, that says how the figures came about."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from vladva_benchmarks import files
from vladva_benchmarks.gauges import hardware, versions
from vladva_benchmarks.result_format import FORMAT, OURS
from vladva_benchmarks.suites.annotations import read_json
from vladva_benchmarks.suites.models import Encoder
from vladva_benchmarks.suites.tasks import Task

LONGEST = 200  # signs of a result's name; file systems end at 255, with what is put around it
_PACKAGES = ("vladva-clip", "torch", "torchvision", "transformers", "open_clip_torch", "clip-benchmark", "numpy")


def path(output: Path, suite: str, dataset: str, model: str, pretrained: str) -> Path:
    """Return the place of a result, whose name holds no `/`; a long name ends in a hash of itself."""
    name = "_".join((suite, dataset, model, pretrained))
    short = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    if len(short) > LONGEST:
        short = f"{short[: LONGEST - 13]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return output / f"{short}.json"


def read(place: Path) -> dict[str, Any] | None:
    """Return an earlier result, None where there is none.

    Raises:
        ValueError: a file that is no result of this version.
    """
    if not place.exists():
        return None
    try:
        result = read_json(place, dict)
    except ValueError as error:
        raise ValueError(f"{place} is no readable result: remove it, and it is scored again from features") from error
    found = result.get(OURS, {}).get("format") if isinstance(result.get(OURS, {}), dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{place} is a result of format {found!r}, this version writes {FORMAT}: move it away or name another "
            "--output"
        )
    return result


def is_current(result: dict[str, Any] | None, place: Path, weights: str, data: str) -> bool:
    """Whether an earlier result is of these weights and these data.

    Raises:
        ValueError: it is of others: it would be lost.
    """
    if result is None:
        return False
    for what, now in (("weights", weights), ("data", data)):
        if result[OURS].get(what) != now:
            shown = "weights or of another precision" if what == "weights" else what
            raise ValueError(
                f"{place} holds figures of other {shown} ({result[OURS].get(what)}, now {now}): move it away or name "
                "another --output"
            )
    return True


def data_fingerprint(task: Task) -> str:
    """Return a sha256 over what is asked: the pictures by name and size, the texts, and how they belong together."""
    seen = {picture: picture.stamp()[:2] for picture in task.pictures}
    pictures = [seen[picture] for picture in task.pictures]
    more = [getattr(task, name, None) for name in ("labels", "templates", "captions")]
    text = json.dumps([task.name, task.counts(), pictures, task.texts, *more])
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
