"""Eight drawn scenes in files, and the packaged model that is asked about them."""

import shutil
from pathlib import Path

import pytest

import vladva_clip
from vladva_clip.quickstart.gallery import draw_gallery


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A folder with eight drawn scenes, named after their captions: nobody may change it."""
    everything, eight = tmp_path_factory.mktemp("gallery"), tmp_path_factory.mktemp("eight")
    for picture in draw_gallery(everything)[::4]:
        shutil.copy(picture.path, eight)
    return eight


@pytest.fixture
def scenes(drawn, tmp_path, monkeypatch) -> Path:
    """The folder `scenes` with eight pictures that a test may break, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(drawn, tmp_path / "scenes")).relative_to(tmp_path)


@pytest.fixture(scope="session")
def loaded():
    """vladva-tiny with its transform and tokenizer, for what the commands are compared with."""
    model, preprocess = vladva_clip.create_model("vladva-tiny")
    return model, preprocess, vladva_clip.get_tokenizer("vladva-tiny")
