"""The reason of a failure: one line, without the item's name and without addresses in memory."""

import pytest

from vladva_clip.pictures.failures import Failure, failed
from vladva_clip.pictures.files import open_file


def reason(path) -> str:
    with pytest.raises((OSError, ValueError)) as caught:
        open_file(path)
    return failed(path, caught.value).reason


def test_the_name_is_not_repeated(tmp_path):
    (tmp_path / "a b.jpg").write_text("hello")
    assert reason(tmp_path / "a b.jpg").startswith("can't be read as JPEG")
    assert reason(tmp_path / "missing.jpg") == "No such file or directory"
    assert "regular file" in reason(tmp_path)


def test_one_line_without_addresses():
    found = failed("x", ValueError("cut\n  <_io.BytesIO object at 0x7f3c5a2b1d00> \r\n off"))
    assert found == Failure("x", "cut <_io.BytesIO object> off")
