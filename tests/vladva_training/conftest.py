"""What training tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base_with_pairs(bases) -> Path:
    """The tiny LLaVA's directory, with pairs.jsonl and its pictures beside it."""
    from tests.support.training import runs

    runs.write_pairs(bases["llava"].parent / "pairs.jsonl")
    return bases["llava"]
