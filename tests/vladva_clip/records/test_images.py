import io

import numpy as np
import pytest
from PIL import Image

from tests.support.samples import picture
from tests.support.training.pairs import encoded, pixels_of
from vladva_clip.records.images import decode_image, read_image
from vladva_clip.records.records import BadRecord


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_decoded_as_rgb(form):
    data = encoded(3, form)
    image = decode_image(data, "k")
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), pixels_of(data))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    wide = Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)) if mode == "I;16" else picture(0).convert(mode)
    image = decode_image(wide, "k")
    assert image.mode == "RGB"
    if mode == "I;16":
        assert np.asarray(image).max() == 40000 // 257


@pytest.mark.parametrize("data", [b"", b"not an image", encoded()[:-200], encoded(0, "PNG")[:100], b"\xff\xd8\xff\xe0"])
def test_a_broken_image_is_found_at_once(data):
    with pytest.raises(BadRecord, match="k: corrupt image") as caught:
        decode_image(data, "k")
    assert caught.value.reason == "corrupt image"


def test_damage_anywhere_is_either_decoded_or_a_bad_record():
    data = encoded(1, "PNG")
    for at in range(0, len(data), max(1, len(data) // 60)):
        damaged = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        try:
            assert decode_image(damaged, "k").mode == "RGB"
        except BadRecord as error:
            assert error.reason in ("corrupt image", "image too large")


def test_an_image_beyond_the_limit_is_a_bad_record(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadRecord) as caught:
        decode_image(encoded(), "k")
    assert caught.value.reason == "image too large"


def test_a_header_with_a_huge_size_is_a_bad_record():
    header = io.BytesIO()
    Image.new("L", (8, 8)).save(header, format="BMP")
    data = bytearray(header.getvalue())
    data[18:26] = (60000).to_bytes(4, "little") + (60000).to_bytes(4, "little")
    with pytest.raises(BadRecord) as caught:
        decode_image(bytes(data), "k")
    assert caught.value.reason == "image too large"


def test_files(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded())
    assert read_image(path, "k").size == picture(0).size
    for missing in (tmp_path / "b.jpg", tmp_path, tmp_path / "nul\0"):
        with pytest.raises(BadRecord) as caught:
            read_image(missing, "k")
        assert caught.value.reason == "missing image"


def test_real_photographs_and_their_first_halves(shared_data):
    paths = sorted((shared_data / "data" / "photos").glob("*.JPEG"))[::16]
    for path in paths:
        assert np.array_equal(np.asarray(read_image(path, "k")), pixels_of(path.read_bytes()))
        data = path.read_bytes()
        with pytest.raises(BadRecord, match="corrupt image"):
            decode_image(data[: len(data) // 2], "k")
