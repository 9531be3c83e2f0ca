"""An EPS under a picture's name in every suite: reported with its name, the other suites go on, no program starts."""

import os
import warnings

import pytest
from PIL import Image

from tests.support.pictures import strange
from tests.support.suites import data_copies
from vladva_benchmarks.suites import runner
from vladva_benchmarks.suites.pictures import Picture
from vladva_benchmarks.suites.runner import Settings


@pytest.fixture(autouse=True)
def mark(tmp_path):
    with strange.ghostscript(tmp_path) as mark:
        yield mark
        assert not mark.exists()


@pytest.mark.parametrize(("suite", "num_workers"), [*((suite, 0) for suite in data_copies.WRITERS), ("coco", 2)])
def test_in_each_suite(suite, num_workers, scratch, clip_name, tmp_path):
    root = scratch(suite)
    spoilt = next(path for path in sorted((root / suite).rglob("*")) if path.suffix in (".jpg", ".JPEG", ".png"))
    spoilt.write_bytes(strange.EPS)
    with pytest.raises(ValueError, match=f"{spoilt.name}.*EPS.*JPEG, PNG"):
        runner.run(
            Settings([suite], clip_name, root, output=tmp_path / "results", num_workers=num_workers, subset=True)
        )


def picture(tmp_path, data: bytes) -> Picture:
    (tmp_path / "cat.jpg").write_bytes(data)
    return Picture("val/cat.jpg", tmp_path / "cat.jpg")


def test_in_an_archive(tmp_path):
    (tmp_path / "a.tar").write_bytes(bytes(512) + strange.EPS + bytes(512))
    inside = Picture("a.tar/0.png", tmp_path / "a.tar", 512, len(strange.EPS))
    with pytest.raises(ValueError, match="a.tar/0.png.*EPS"):
        inside.open()


def test_one_that_promises_too_much(tmp_path):
    with pytest.raises(ValueError, match=r"val/cat\.jpg.*too large"):
        picture(tmp_path, strange.png(60_000, 60_000)).open()


def test_any_error_of_a_decoder_is_a_picture_that_cant_be_read(tmp_path, monkeypatch):
    """A warning as an error, by which PIL says that a picture is large, is neither OSError nor ValueError."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 60)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(ValueError, match="cat.jpg.*not a readable"),
    ):
        picture(tmp_path, strange.png(64, 64)).open()
    with warnings.catch_warnings(), pytest.raises(ValueError, match="too large"):
        warnings.simplefilter("error")
        picture(tmp_path, strange.png(64, 64)).open()


def test_a_pipe_in_place_of_a_picture(tmp_path):
    os.mkfifo(tmp_path / "cat.jpg")
    with pytest.raises(ValueError, match="not a regular file"):
        Picture("val/cat.jpg", tmp_path / "cat.jpg").open()
