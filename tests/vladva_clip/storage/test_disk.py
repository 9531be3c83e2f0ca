"""A disk that takes no more: one kind of error with the path, and an earlier adapter that still loads."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import vladva_clip
from vladva_clip.storage import adapter_files, disk


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Let no file of this process grow further: what a write then meets is real, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def model(bases):
    return vladva_clip.create_model(f"local-dir:{bases['llava']}")[0]


@pytest.fixture
def saved(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("name", ["vladva_config.json", "soft_prompt.safetensors", "tokenizer.json"])
def test_a_disk_that_is_full_while_a_file_is_written(model, saved, name):
    """tokenizers raises a bare Exception."""
    before = content(saved)
    with no_file_beyond(len(before[name]) - 10), pytest.raises(OSError, match="disk or its quota is full") as error:
        model.save_pretrained(saved, verify=False)  # which writes nothing elsewhere
    assert error.value.errno == errno.EFBIG and f"{saved} can't be written" in str(error.value)
    assert content(saved) == before
    vladva_clip.create_model(f"local-dir:{saved}")


@pytest.mark.parametrize("name", ["vladva_config.json", "tokenizer.json", "adapter_model.safetensors"])
def test_a_folder_in_the_way_of_a_file_is_refused_before_anything_is_replaced(model, saved, name):
    (saved / name).unlink(missing_ok=True)
    (saved / name).mkdir()
    before = sorted(saved.iterdir())
    with pytest.raises(FileExistsError, match=rf"folder is in the way.*{name}"):
        model.save_pretrained(saved)
    assert sorted(saved.iterdir()) == before


def test_a_file_in_the_way_of_the_directory(model, tmp_path):
    (tmp_path / "adapter").write_text("")
    with pytest.raises(OSError, match="adapter can't be written"):
        model.save_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (Exception("No space left on device (os error 28)"), errno.ENOSPC),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), errno.EIO),
        (PermissionError(errno.EACCES, "Permission denied", "a"), errno.EACCES),
    ],
)
def test_what_libraries_raise_becomes_the_system_s_error_with_the_path(error, number):
    with pytest.raises(OSError, match="^.*/place can't be written: ") as found, disk.writing("/place"):
        raise error
    assert found.value.errno == number and found.value.__cause__ is error
    assert ("make room" in str(found.value)) == (number in disk.FULL)


def test_torch_s_own_error_is_known(tmp_path):
    with no_file_beyond(10), pytest.raises(OSError, match="can't be written"), disk.writing(tmp_path / "a.pt"):
        torch.save(torch.ones(1000), tmp_path / "a.pt")


def test_errors_of_other_kinds_go_on_as_they_are():
    with pytest.raises(RuntimeError, match="^CUDA error$"), disk.writing("/place"):
        raise RuntimeError("CUDA error")
    with pytest.raises(OSError, match="a can't be written") as found, disk.writing("/b"), disk.writing("/a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "/b" not in str(found.value)


def test_a_first_save_that_fails_leaves_nothing_that_loads(model, tmp_path):
    with no_file_beyond(100), pytest.raises(OSError, match="disk or its quota is full"):
        model.save_pretrained(tmp_path / "adapter", verify=False)
    assert not os.listdir(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / adapter_files.CONFIG).exists()


def test_a_temporary_folder_that_is_full(bases):
    with no_file_beyond(100), pytest.raises(OSError, match="vladva-base-.* can't be written.*make room"):
        vladva_clip.create_model(f"local-dir:{bases['llava']}")
