"""A tiny CLIP, copies of the data sets, and small runs over drawn scenes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = {"num_workers": 0, "scene_pictures": 24, "part": 8}


@pytest.fixture(scope="module")
def clip_name(tmp_path_factory) -> str:
    """A tiny CLIP of open_clip's, by the name that loads it."""
    from tests.support.models import tiny_clips

    return tiny_clips.write_directory(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """A data root with a small copy of every data set; tests that change one take `scratch`."""
    from tests.support.suites import data_copies

    root = tmp_path_factory.mktemp("copies")
    for write in data_copies.WRITERS.values():
        write(root)
    return root


@pytest.fixture
def scratch(copies, tmp_path) -> Callable[[str], Path]:
    """suite -> a data root with that one alone, to be spoilt."""

    def copy(suite: str) -> Path:
        shutil.copytree(copies / suite, tmp_path / "data" / suite)
        return tmp_path / "data"

    return copy


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    """Where the scenes of `settings` are drawn."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def settings(clip_name, data_root, tmp_path):
    """A run over a few drawn scenes, in parts of eight."""
    from vladva_benchmarks.suites.runner import Settings

    return Settings(["scenes"], clip_name, data_root, output=tmp_path / "results", **SMALL)


@pytest.fixture(scope="module")
def expected(clip_name, data_root, tmp_path_factory) -> dict[str, dict[str, float]]:
    """The figures of that run when nothing disturbs it."""
    from tests.support.suites import suite_results
    from vladva_benchmarks.suites import runner

    asked = runner.Settings(["scenes"], clip_name, data_root, output=tmp_path_factory.mktemp("expected"), **SMALL)
    return suite_results.metrics(runner.run(asked))
