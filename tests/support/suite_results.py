"""What a run of suites left and said."""

import json
from pathlib import Path


def metrics(paths: list[Path]) -> dict[str, dict[str, float]]:
    """Data set -> its figures, from result files."""
    results = [json.loads(path.read_text()) for path in paths]
    return {result["dataset"]: result["metrics"] for result in results}


def computed(said: str) -> list[str]:
    """The lines on features that were computed, wholly or in part."""
    return [line for line in said.splitlines() if " items" in line]
