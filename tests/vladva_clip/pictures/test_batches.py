"""Batches are full, in order and independent of the threads that read ahead; unreadable pictures are listed."""

import threading
import time

import pytest
import torch
from PIL import Image

from tests.support.samples import picture
from vladva_clip.pictures.batches import READERS, batches


@pytest.fixture
def paths(tmp_path):
    """Eight pictures, the third and the sixth of them unreadable."""
    found = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(found):
        picture(number).save(path)
    found[2].write_bytes(found[2].read_bytes()[:100])
    found[5].unlink()
    return found


def test_full_batches_in_order_without_the_unreadable(paths, preprocess):
    failures = []
    got = list(batches(paths, preprocess, 4, failures))
    assert [names for names, _ in got] == [[paths[0], paths[1], paths[3], paths[4]], [paths[6], paths[7]]]
    for names, pixels in got:
        expected = torch.stack([preprocess(picture(paths.index(name))) for name in names])
        assert torch.equal(pixels, expected)
    assert [one.name for one in failures] == [str(paths[2]), str(paths[5])]
    assert "can't be read" in failures[0].reason and failures[1].reason == "No such file or directory"


@pytest.mark.parametrize("size", [1, 3, 6, 100])
def test_any_size(paths, preprocess, size):
    got = list(batches(paths, preprocess, size, []))
    assert [len(names) for names, _ in got] == [min(size, 6 - start) for start in range(0, 6, size)]


def test_nothing_readable_gives_no_batch(paths, preprocess):
    failures = []
    assert not list(batches([paths[2], paths[5]], preprocess, 2, failures)) and len(failures) == 2


@pytest.mark.parametrize("size", [0, -1, 2.0, True, None])
def test_an_invalid_size_is_refused(paths, preprocess, size):
    with pytest.raises(ValueError, match="batch_size"):
        next(batches(paths, preprocess, size, []))


def test_it_reads_ahead_by_a_batch_and_no_further(paths):
    read = []

    def slow_for_the_first(image):
        read.append(image)
        time.sleep(0.2 if len(read) == 1 else 0)
        return torch.zeros(3, 1, 1)

    running = batches([paths[0]] * 20, slow_for_the_first, 3, [])
    next(running)
    deadline = time.monotonic() + 30
    while len(read) < 3 + 3 + READERS and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # time to read too many
    assert len(read) == 3 + 3 + READERS
    running.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_it_ends_cleanly_when_its_caller_is_interrupted(tmp_path, error):
    before, read, goes_on = threading.active_count(), [], threading.Event()
    for name, width in (("first", 8), ("rest", 9)):
        Image.new("RGB", (width, 8)).save(tmp_path / f"{name}.png")

    def held(image):
        read.append(image)
        if image.width == 9:
            goes_on.wait(30)
        return torch.zeros(3, 1, 1)

    running = batches([tmp_path / "first.png"] * 8 + [tmp_path / "rest.png"] * 42, held, 8, [])
    with pytest.raises(error):
        next(running)
        later = threading.Timer(1, goes_on.set)  # by then, what was waiting has been dropped
        later.start()
        running.throw(error)
    later.join()
    assert threading.active_count() == before, "no thread goes on"
    assert len(read) <= 8 + READERS, "what was waiting is not read"


def test_errors_of_the_program_are_not_failures(paths):
    def broken(image):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        list(batches(paths, broken, 2, []))
