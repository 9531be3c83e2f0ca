"""One writer at a time, and no lock outlives its process."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vladva_clip.export.directory import new_export
from vladva_clip.storage import adapter_files, file_locks, whole

_fork = multiprocessing.get_context("fork")


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / ".lock"


def is_free(lock: Path) -> bool:
    try:
        with file_locks.held(lock):
            return True
    except ValueError:
        return False


def becomes_free(lock: Path) -> bool:
    """Whether it is free soon: a process that was forked a moment ago may not have come to giving it up."""
    for _ in range(100):
        if is_free(lock):
            return True
        time.sleep(0.1)
    return False


def test_a_second_one_is_refused_and_the_file_goes(lock):
    with file_locks.held(lock):
        with (
            pytest.raises(ValueError, match=rf"\d+ on .* is writing to {lock.parent}") as caught,
            file_locks.held(lock),
        ):
            pass
        assert "name another directory" in str(caught.value)
    assert not lock.exists() and is_free(lock) and not lock.exists()


def test_those_that_share_it_keep_all_others_out(lock):
    with file_locks.held(lock, shared=True):
        with file_locks.held(lock, shared=True):
            assert not is_free(lock)
        assert lock.exists() and not is_free(lock)
    assert not lock.exists() and is_free(lock)


def test_waiting(lock):
    taken, order = threading.Event(), []

    def later():
        taken.wait()
        with file_locks.held(lock, wait=True):
            order.append("later")

    thread = threading.Thread(target=later)
    thread.start()
    with file_locks.held(lock):
        taken.set()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "later"] and not lock.exists()


HOLD = """
import multiprocessing, pathlib, sys, time
from vladva_clip.storage import file_locks

lock, with_child = pathlib.Path(sys.argv[1]), sys.argv[2] == "True"
with file_locks.held(lock):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    if with_child:
        child.start()
    print(child.pid or 0, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("with_child", [False, True])
def test_a_killed_process_frees_it_whatever_it_has_forked(lock, with_child):
    command = [sys.executable, "-c", HOLD, str(lock), str(with_child)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        assert process.poll() is None and not is_free(lock)
        process.kill()
        process.wait()
        assert becomes_free(lock)
        if child:
            os.kill(child, signal.SIGKILL)  # it lived, like a loader's worker: this raises for one that has ended


def _is_null(descriptor: int, done) -> None:
    done.send(os.path.sameopenfile(descriptor, os.open(os.devnull, os.O_RDONLY)))


def test_a_forked_process_reuses_no_number_of_a_lock(tmp_path):
    """Whoever had the number could close it later, and free the lock that has it now."""
    folder = file_locks.lock_folder(tmp_path)
    ours, theirs = _fork.Pipe()
    process = _fork.Process(target=_is_null, args=(folder.descriptor, theirs))
    process.start()
    assert ours.recv()
    process.join()
    with pytest.raises(BlockingIOError):
        file_locks.lock_folder(tmp_path)
    file_locks.free_folder(folder)


def _end_inherited(inherited: list, lock: Path, done) -> None:
    with file_locks.held(lock), whole.scratch(lock.parent / "own"):  # with numbers that the fork freed, if it freed any
        for one in inherited:
            one.__exit__(None, None, None)  # as the garbage collector may
        done.send(not is_free(lock))


def test_a_forked_process_frees_and_removes_nothing_that_its_parent_entered(tmp_path):
    inherited = [file_locks.held(tmp_path / ".parent.lock"), whole.scratch(tmp_path / "parent")]
    with inherited[0], inherited[1] as place:
        ours, theirs = _fork.Pipe()
        process = _fork.Process(target=_end_inherited, args=(inherited, tmp_path / ".lock", theirs))
        process.start()
        assert ours.recv()
        process.join()
        assert place.is_dir() and not is_free(tmp_path / ".parent.lock")


def test_without_locks_a_warning_says_so(lock, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_locks.fcntl, "flock", refuse)
    with file_locks.held(lock):
        assert f"{lock.parent} can't be locked" in caplog.text
    monkeypatch.setattr(file_locks, "fcntl", None)
    with file_locks.held(lock):
        assert "no locks on this system" in caplog.text


def test_of_two_that_save_an_adapter_at_once_one_waits(honest, tmp_path):
    read = adapter_files.read(honest)
    thread = threading.Thread(target=adapter_files.write, args=(tmp_path / "a", read, {}))
    (tmp_path / "a").mkdir()
    with file_locks.held(tmp_path / "a" / ".saving.lock"):  # the other one is putting its files into place
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and not list((tmp_path / "a").glob("*.json"))
    thread.join()
    assert adapter_files.read(tmp_path / "a").config.prompt == read.config.prompt
    assert not list((tmp_path / "a").glob(".*"))


def test_an_export_that_was_slower_replaces_no_other(tmp_path):
    with pytest.raises(ValueError, match="is there already"), new_export(tmp_path / "out", overwrite=False) as scratch:
        (scratch / "slower").touch()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "faster").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "faster"]
