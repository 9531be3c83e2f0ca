"""Files cut at every tenth byte: a picture of the right size, or an error that names the file."""

import io

import pytest

from tests.support.samples import picture
from vladva_clip.pictures.files import PictureError, read_picture

WHOLE = picture(0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_truncated_file(kind):
    WHOLE.save(file := io.BytesIO(), kind)
    data, refused = file.getvalue(), 0
    for end in range(0, len(data), 10):
        try:
            assert read_picture(data[:end], "cat.jpg").size == WHOLE.size
        except PictureError as error:
            assert "cat.jpg" in str(error)
            refused += 1
    assert refused > 1 and read_picture(data).size == WHOLE.size
