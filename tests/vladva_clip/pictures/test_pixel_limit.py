"""The user's own limit of pixels."""

import io

import pytest
from PIL import Image

from vladva_clip.pictures import pixel_limit
from vladva_clip.pictures.files import TooLargeError, read_picture


def png(width: int, height: int) -> bytes:
    Image.new("1", (width, height)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def pillows_own(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
    pixel_limit._apply.cache_clear()
    yield
    pixel_limit._apply.cache_clear()


def test_the_message_says_how_to_allow_more():
    with pytest.raises(TooLargeError, match="14400 pixels.*limit of 10000.*VLADVA_CLIP_MAX_PIXELS"):
        read_picture(png(120, 120))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_and_fewer(monkeypatch):
    monkeypatch.setenv(pixel_limit.VARIABLE, "14400")
    assert read_picture(png(120, 120)).size == (120, 120)
    with pytest.raises(TooLargeError):
        read_picture(png(120, 121))
    monkeypatch.setenv(pixel_limit.VARIABLE, "100")
    with pytest.raises(TooLargeError):
        read_picture(png(11, 10))


@pytest.mark.parametrize("said", ["many", "-1", "1e9", "0"])
def test_no_number(monkeypatch, said):
    monkeypatch.setenv(pixel_limit.VARIABLE, said)
    with pytest.raises(ValueError, match="expected a whole number of pixels"):
        read_picture(png(2, 2))
