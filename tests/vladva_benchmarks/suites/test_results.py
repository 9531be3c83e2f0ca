"""A result file without its figures is no result, another one's is kept: what counts as finished."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.suites import data_copies
from tests.support.suites.suite_results import computed, metrics
from vladva_benchmarks.suites import drawn_scenes, runner
from vladva_benchmarks.suites.results import Place, UnfinishedError, data_fingerprint

SPOILT = {
    "no metrics": lambda data: data.pop("metrics"),
    "null": lambda data: data.update(metrics=None),
    "none": lambda data: data.update(metrics={}),
    "a list": lambda data: data.update(metrics=[0.5]),
    "NaN": lambda data: data["metrics"].update(acc1=float("nan")),
    "text": lambda data: data["metrics"].update(acc1="0.5"),
    "a flag": lambda data: data["metrics"].update(acc1=True),
    "percent": lambda data: data["metrics"].update(acc1=39.0),
    "a huge number": lambda data: data["metrics"].update(acc1=10**400),
    "one lost": lambda data: data["metrics"].pop("acc5"),
    "another task's": lambda data: data.update(metrics={"acc": 0.5}),
}
DAMAGED = {
    "empty": b"",
    "cut": b'{"dataset": "scenes/cl',
    "deep": b"[" * 200_000,
    "nul bytes": bytes(50),
    "latin": b"\xff",
}


@pytest.fixture(scope="module")
def finished(clip_name, data_root, tmp_path_factory) -> tuple[runner.Settings, list[Path]]:
    """A run over a few scenes, and its results."""
    output = tmp_path_factory.mktemp("finished")
    asked = runner.Settings(["scenes"], clip_name, data_root, output=output, num_workers=0, scene_pictures=24, part=8)
    return asked, runner.run(asked)


@pytest.fixture
def place(finished, tmp_path) -> Place:
    """Where a copy of the first result lies."""
    settings, (path, *_) = finished
    (tmp_path / path.name).write_bytes(path.read_bytes())
    task = next(drawn_scenes.read(settings.data_root))
    return Place(tmp_path / path.name, task, settings.model, "")


def change(path: Path, how) -> None:
    data = json.loads(path.read_text())
    how(data)
    path.write_text(json.dumps(data))


def test_a_whole_one_counts(place):
    found = place.read()
    assert set(found["metrics"]) == set(place.task.metrics)
    assert place.is_current(found, found["vladva"]["weights"], data_fingerprint(place.task))


@pytest.mark.parametrize("how", SPOILT.values(), ids=SPOILT)
def test_figures_that_are_none(place, how):
    change(place.path, how)
    with pytest.raises(UnfinishedError, match=str(place.path)):
        place.read()


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file(place, content):
    place.path.write_bytes(content)
    with pytest.raises(UnfinishedError, match=f"{place.path} is empty.* or damaged"):
        place.read()


def test_counts_of_other_items(place):
    change(place.path, lambda data: data["vladva"]["counts"].update(images=5))
    found = place.read()
    with pytest.raises(UnfinishedError, match="'images': 5"):
        place.is_current(found, found["vladva"]["weights"], found["vladva"]["data"])


@pytest.mark.parametrize(
    ("key", "value"), [("dataset", "scenes/retrieval"), ("model", "another"), ("pretrained", "tag")]
)
def test_another_ones_is_refused(place, key, value):
    """Names are cut to what files may be called: two of them may meet in one."""
    change(place.path, lambda data: data.update({key: value}))
    with pytest.raises(ValueError, match=f"{place.path} has the {key} '{value}', now .*--output") as caught:
        place.read()
    assert not isinstance(caught.value, UnfinishedError)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_what_is_no_file(place, make):
    place.path.unlink()
    make(place.path)
    with pytest.raises(ValueError, match=f"{place.path} can't be read as a result") as caught:
        place.read()
    assert not isinstance(caught.value, UnfinishedError)


def test_the_command_scores_it_again(finished, capsys):
    """From the features that are kept, which is said; a whole one beside it is left alone."""
    settings, paths = finished
    before = metrics(paths)
    change(paths[0], SPOILT["none"])
    capsys.readouterr()
    assert metrics(runner.run(settings)) == before
    said = capsys.readouterr().out
    assert f"{paths[0]} has {{}}" in said and "scoring it again" in said and not computed(said)
    assert f"{paths[1]} is there already" in said


def test_other_bytes_under_the_same_name_size_and_time_are_other_data(clip_name, tmp_path, capsys):
    """A figure of pictures that are there no more is named and kept; features of the new ones are computed."""
    data_copies.flickr30k(tmp_path, 4)
    first, second = sorted((tmp_path / "flickr30k").glob("*.jpg"))[:2]
    Image.new("RGB", (8, 8), "red").save(first, "BMP")
    asked = runner.Settings(
        ["flickr30k"], clip_name, tmp_path, output=tmp_path / "results", num_workers=0, subset=True, part=2
    )
    runner.run(asked)
    status = first.stat()
    Image.new("RGB", (8, 8), "blue").save(first, "BMP")
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.utime(second)
    assert (first.stat().st_size, first.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    with pytest.raises(ValueError, match="holds figures of other data"):
        runner.run(asked)
    capsys.readouterr()
    runner.run(replace(asked, output=tmp_path / "again", features=tmp_path / "results" / "features"))
    (images,) = computed(capsys.readouterr().out)  # a picture that was only touched costs nothing
    assert "images: 4 items, 1 of 2 parts found" in images


@pytest.mark.parametrize("suite", ["flickr30k", "nocaps", "sugarcrepe", "sugarcrepe_pp", "winoground", "imagenet1k"])
def test_every_task_names_what_it_scores(copies, suite):
    """A result is checked against these names."""

    def features(items: list) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.arange(1.0, 4 * len(items) + 1).reshape(-1, 4).sin(), dim=-1)

    for task in data_copies.read(suite, copies):
        assert set(task.score(features, features)) == set(task.metrics), task.name
