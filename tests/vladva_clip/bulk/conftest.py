"""Small parts, a folder of pictures, and the packaged model."""

from pathlib import Path

import pytest

import vladva_clip
from tests.support.samples import picture
from vladva_clip.bulk import job
from vladva_clip.bulk.filling import Model


@pytest.fixture
def small_parts(monkeypatch) -> int:
    """Parts of four items."""
    monkeypatch.setattr(job, "SIZE", 4)
    return 4


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder `pictures` with ten pictures, one of them below it and one broken, in the working directory."""
    monkeypatch.chdir(tmp_path)
    place = Path("pictures")
    (place / "below").mkdir(parents=True)
    for number in range(10):
        picture(number).save(place / ("below" if number == 3 else "") / f"{number}.png")
    (place / "7.png").write_bytes(b"not a picture")
    return place


@pytest.fixture(scope="session")
def tiny() -> Model:
    model, preprocess = vladva_clip.create_model("vladva-tiny")
    return Model(model, preprocess, vladva_clip.get_tokenizer("vladva-tiny"), batch_size=3)
