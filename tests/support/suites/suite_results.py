"""What a run of suites left and said."""

import json
from pathlib import Path

from vladva_benchmarks.suites import drawn_foils

NUM_SCENE_TASKS = 2 + len(drawn_foils.KINDS)
"""The data sets of the suite scenes: classification, retrieval, and each kind of foils."""


def metrics(paths: list[Path]) -> dict[str, dict[str, float]]:
    """Data set -> its figures, from result files."""
    results = [json.loads(path.read_text()) for path in paths]
    return {result["dataset"]: result["metrics"] for result in results}


def computed(said: str) -> list[str]:
    """The lines on features that were computed, wholly or in part."""
    return [line for line in said.splitlines() if " items" in line]
