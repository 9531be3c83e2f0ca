"""A base's directory, opened once: content is read when needed, once, and only from within the directory."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from vladva_clip.storage.base import BaseFiles


@pytest.fixture
def directory(bases, tmp_path) -> Path:
    return Path(shutil.copytree(bases["llava"], tmp_path / "base"))


def change(directory: Path) -> None:
    """Change the config, a small file and every tensor."""
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "added": 1}))
    (directory / "chat.txt").write_text("later")
    tensors = {name: tensor.float() + 1 for name, tensor in load_file(directory / "model.safetensors").items()}
    save_file(dict(list(tensors.items())[1:]), directory / "model.safetensors")


def test_all_callers_see_the_first_content(directory):
    (directory / "chat.txt").write_text("first")
    base = BaseFiles(directory)

    def seen() -> tuple:
        return base.config, base.content("chat.txt", 8), base.headers, base.shapes, base.fingerprint

    before = seen()
    change(directory)
    assert seen() == before
    opened_again = BaseFiles(directory)
    after = opened_again.config, opened_again.content("chat.txt", 8), opened_again.headers, opened_again.shapes
    assert not any(new == old for new, old in zip((*after, opened_again.fingerprint), before, strict=True))


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    base = BaseFiles(tmp_path / "later")
    assert not base.has("config.json")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "config.json").write_text('{"a": 1}')
    assert base.has("config.json") and base.config == {"a": 1}


@pytest.mark.parametrize("read", [BaseFiles.json, lambda base, name: base.content(name, 1 << 10)])
def test_a_link_to_a_place_outside(directory, tmp_path, read):
    (tmp_path / "secret").write_text('{"a": 1}')
    (directory / "note.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="note.json in .* is a link to .*secret"):
        read(BaseFiles(directory), "note.json")
    (directory / "note.json").unlink()
    (tmp_path / "base" / "kept").write_text('{"a": 1}')
    (directory / "note.json").symlink_to("kept")
    assert read(BaseFiles(directory), "note.json")


def test_a_file_that_is_too_large_or_missing(directory):
    (directory / "big.txt").write_bytes(b"x" * 9)
    base = BaseFiles(directory)
    assert base.content("big.txt", 9) == b"x" * 9
    with pytest.raises(ValueError, match="big.txt has more than 8 bytes"):
        base.content("big.txt", 8)
    for read in (lambda: base.json("none.json"), lambda: base.content("none.json", 8)):
        with pytest.raises(ValueError, match="none.json"):
            read()


def test_what_is_missing_now_may_come(directory):
    """A failure is not kept."""
    base = BaseFiles(directory)
    (directory / "model.safetensors").rename(directory / "away")
    with pytest.raises(ValueError, match="no model.safetensors"):
        _ = base.headers
    (directory / "away").rename(directory / "model.safetensors")
    assert base.headers and base.fingerprint.startswith("sha256:")
