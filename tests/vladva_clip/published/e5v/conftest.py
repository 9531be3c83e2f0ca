"""E5-V in a hand-made Hub cache, and its authors' way."""

from pathlib import Path

import pytest

from tests.support import hub_cache
from tests.support.published import e5v
from tests.support.published.ours import Ours


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> Path:
    """The cache with the repository in it."""
    root = tmp_path_factory.mktemp("e5v")
    hub_cache.put(root / "cache", e5v.REPOSITORY, e5v.write(root / "files"), e5v.REVISION)
    return root / "cache"


@pytest.fixture(scope="session")
def directory(cache_dir) -> Path:
    """The repository's snapshot."""
    return cache_dir / "models--royokong--e5-v" / "snapshots" / e5v.REVISION


@pytest.fixture(scope="session")
def way(directory) -> e5v.Authors:
    return e5v.Authors(directory)


@pytest.fixture(scope="session")
def ours(cache_dir) -> Ours:
    """By its short name, at the authors' size."""
    return Ours(e5v.NAME, cache_dir=cache_dir)
