"""A file or a folder is whole or not there when its writer is killed, interrupted, or meets a full disk."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support import killed_writes
from tests.support.killed_writes import LATER, NEW, OLD, found, names, write_file, write_folder
from vladva_clip.storage import file_locks, whole


@pytest.fixture
def quick(tmp_path) -> Iterator[Path]:
    """A directory in memory if there is one: on a disk, hundreds of flushed writes take minutes."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as directory:
        yield Path(directory)


def kill(action: str, before: str, directory: Path) -> list[dict]:
    """What is found when the writer is killed at its first step, its second, and so on."""
    script = Path(killed_writes.__file__)
    ran = subprocess.run([sys.executable, script, action, before, directory], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


class TestKilled:
    @pytest.mark.parametrize("before", ["", OLD])
    @pytest.mark.parametrize("action", ["file", "folder"])
    def test_at_every_step_the_old_or_the_new_content_is_there(self, quick, action, before):
        if action == "folder" and before and sys.platform != "linux":
            pytest.skip("folders can't be exchanged in one step here")
        reports = kill(action, before, quick)
        seen = [report["killed"] for report in reports]
        cuts = seen.index(NEW)
        assert 20 < cuts < len(seen) - 5  # steps before the rename, and steps that tidy up after it
        assert {*seen[:cuts]} == {before or None} and {*seen[cuts:]} == {NEW}
        for report in reports:
            left = ["name"] if report["killed"] else []
            assert report["broken off"] == [report["killed"], left] and report["finished"] == [LATER, ["name"]]

    def test_between_two_renames_the_next_write_puts_the_old_folder_back(self, quick):
        """Where the system can't exchange two folders in one step."""
        reports = kill("two-renames", OLD, quick)
        assert {report["killed"] for report in reports} == {OLD, None, NEW}
        for report in reports:
            assert report["broken off"] == [report["killed"] or OLD, ["name"]]
            assert report["finished"] == [LATER, ["name"]]

    def test_between_two_renames_clean_puts_the_old_folder_back(self, tmp_path):
        place = leftover(tmp_path / "name", host="0123abcd")
        write_folder(tmp_path / "other", OLD)
        (tmp_path / "other").rename(place / whole.OLD)
        whole.clean(tmp_path)
        assert names(tmp_path) == ["name"] and found(tmp_path / "name") == OLD

    def test_a_folder_is_removed_whole_or_not_at_all(self, quick):
        reports = kill("remove", OLD, quick)
        assert {report["killed"] for report in reports} == {OLD, None}
        for report in reports:  # what was removed doesn't come back
            assert report["broken off"] == [report["killed"], ["name"] if report["killed"] else []]


def leftover(path: Path, number: int = 0, host: str = whole._HOST) -> Path:
    """What a killed writer leaves beside a path."""
    place = path.with_name(f".{path.name}.writing-{host}-{number}")
    place.mkdir(parents=True)
    (place / whole.NEW).write_text("half")
    return place


class TestLeftovers:
    def test_what_killed_writers_left_is_removed_by_the_next_write(self, tmp_path):
        for number in range(3):
            leftover(tmp_path / "name", number)
        other = leftover(tmp_path / "other")
        write_file(tmp_path / "name", NEW)
        assert names(tmp_path) == [other.name, "name"] and found(tmp_path / "name") == NEW

    def test_another_writer_that_is_alive_is_left_alone(self, tmp_path):
        path = tmp_path / "name"
        with whole.file(path) as slow:
            slow.write_text(OLD)
            leftover(path, 1)
            thread = threading.Thread(target=write_file, args=(path, NEW))
            thread.start()
            thread.join()
            assert found(path) == NEW and names(tmp_path) == [slow.parent.name, "name"]
        assert found(path) == OLD and names(tmp_path) == ["name"]

    def test_of_another_machine_only_clean_removes_them(self, tmp_path):
        other = leftover(tmp_path / "name", host="0123abcd")
        write_file(tmp_path / "name", NEW)
        assert names(tmp_path) == [other.name, "name"]
        whole.clean(tmp_path)
        assert names(tmp_path) == ["name"]

    def test_without_locks_only_clean_removes_them(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(file_locks.fcntl, "flock", refuse)
        left = leftover(tmp_path / "name")
        write_file(tmp_path / "name", NEW)
        assert names(tmp_path) == [left.name, "name"] and found(tmp_path / "name") == NEW
        whole.clean(tmp_path)
        assert names(tmp_path) == ["name"]

    def test_those_of_another_user_are_no_obstacle(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "name")
            os.chmod(directory, 0o777)
            left = leftover(path)
            left.chmod(0o555)
            assert as_another_user(lambda: write_file(path, NEW)) == ""
            assert names(Path(directory)) == [left.name, "name"] and found(path) == NEW
            left.chmod(0o755)

    def test_clean_leaves_everything_else(self, tmp_path):
        (tmp_path / ".notes.writing-tips").mkdir()
        (tmp_path / ".a.writing-0123abcd-0").write_text("a file of someone else's")
        whole.clean(tmp_path)
        whole.clean(tmp_path / "missing")
        assert len(names(tmp_path)) == 2


class TestInterrupted:
    @pytest.mark.parametrize("kind", [whole.file, whole.folder])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
    def test_in_the_middle_nothing_is_left_behind(self, tmp_path, kind, error):
        (write_folder if kind is whole.folder else write_file)(tmp_path / "a" / "there", OLD)
        for name in ("there", "new"):
            with pytest.raises(error), kind(tmp_path / "a" / name) as new:
                (new / "half" if kind is whole.folder else new).write_text("half")
                raise error
        assert names(tmp_path / "a") == ["there"] and found(tmp_path / "a" / "there") == OLD

    @pytest.mark.parametrize("write", [write_file, write_folder])
    def test_at_every_line_the_old_or_the_new_content_is_there(self, quick, write):
        """A KeyboardInterrupt at the nth line of ours, also while it cleans up."""
        seen, interrupted = [], True
        while interrupted:
            path = quick / str(len(seen)) / "name"
            write(path, OLD)
            interrupted = interrupt(lambda path=path: write(path, NEW), len(seen) + 1)
            seen.append(found(path))
        assert {*seen} == {OLD, NEW}


def interrupt(call: Callable[[], object], nth: int) -> bool:
    """Interrupt a call at its nth line of ours; False if it ended before."""
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename != whole.__file__:
            return None
        lines += event == "line"
        if event == "line" and lines == nth:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Let no file of this process grow further: what a write then meets is real, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save_bytes(_: torch.Tensor, path: Path) -> None:
    path.write_bytes(bytes(9000))


def save_tensor(tensor: torch.Tensor, path: Path) -> None:
    save_file({"tensor": tensor}, path)


@pytest.mark.parametrize("after", [(Path, "mkdir"), (file_locks, "lock_folder"), (shutil, "rmtree")])
def test_ctrl_c_before_the_folder_is_recorded_and_while_it_is_removed(tmp_path, monkeypatch, after):
    """A real signal, as the call returns."""
    real = getattr(*after)

    def interrupted(*args, **options):
        found = real(*args, **options)
        if whole.is_scratch(args[0]) or after == (shutil, "rmtree"):
            signal.raise_signal(signal.SIGINT)
        return found

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(*after, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt), whole.scratch(tmp_path / "a"):
            assert after == (shutil, "rmtree"), "the block must not begin"
        assert not list(tmp_path.iterdir())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


class TestRefused:
    @pytest.mark.parametrize("save", [save_bytes, save_tensor, torch.save])
    def test_a_full_disk(self, tmp_path, save):
        write_file(tmp_path / "name", OLD)
        for kind, name in ((whole.file, "name"), (whole.folder, "folder")):
            refused = pytest.raises(OSError, match=f"{tmp_path / name} can't be written: ")
            with no_file_beyond(5000), refused as error, kind(tmp_path / name) as new:
                save(torch.zeros(9000), new / "tensors" if kind is whole.folder else new)
            assert ".writing" not in str(error.value)
            assert save is torch.save or "make room" in str(error.value)  # torch doesn't give the reason
        assert names(tmp_path) == ["name"] and found(tmp_path / "name") == OLD

    def test_a_full_disk_while_a_folder_is_copied(self, tmp_path):
        write_folder(tmp_path / "source", NEW)
        refused = pytest.raises(OSError, match="copy can't be written.*make room")
        with no_file_beyond(5000), refused as error, whole.folder(tmp_path / "copy") as new:
            shutil.copytree(tmp_path / "source", new, dirs_exist_ok=True)
        assert error.value.errno == errno.EFBIG and names(tmp_path) == ["source"]

    def test_a_read_only_folder(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "name")
            write_file(path, OLD)
            os.chmod(directory, 0o555)
            said = as_another_user(lambda: write_file(path, NEW))
            assert f"{path} can't be written: Permission denied" in said and found(path) == OLD
            os.chmod(directory, 0o755)
            assert names(Path(directory)) == ["name"]

    def test_a_folder_in_the_way_of_a_file_and_a_file_in_the_way_of_a_folder(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        for write, name in ((write_file, "folder"), (write_folder, "file"), (write_file, "file/name")):
            with pytest.raises(OSError, match=f"{tmp_path / name} can't be written: "):
                write(tmp_path / name, NEW)
        assert names(tmp_path) == ["file", "folder"] and not names(tmp_path / "folder")


def as_another_user(call: Callable[[], object]) -> str:
    """Run a call in a fork without root's rights, who may write everywhere; return its OSError's text."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside torch's threads, which are idle
        child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            call()
        except OSError as error:
            os.write(theirs, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with os.fdopen(ours) as stream:
        return stream.read()


class TestPlace:
    def test_only_an_empty_folder_is_replaced_if_asked(self, tmp_path):
        (tmp_path / "name").mkdir()
        with whole.folder(tmp_path / "name", replace=False) as new:
            (new / "mine").touch()
        assert names(tmp_path / "name") == ["mine"]
        refused = pytest.raises(OSError, match="name can't be written.*not empty")
        with refused, whole.folder(tmp_path / "name", replace=False) as new:
            (new / "other").touch()
        assert names(tmp_path / "name") == ["mine"] and names(tmp_path) == ["name"]

    def test_parents_are_made_and_a_relative_path_outlives_chdir(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with whole.file("a/b/name") as new:
            os.chdir("/")
            new.write_text(NEW)
        assert found(tmp_path / "a" / "b" / "name") == NEW

    @pytest.mark.parametrize("write", [write_file, write_folder])
    def test_a_link_is_replaced_and_its_target_stays(self, tmp_path, write):
        write(tmp_path / "target", OLD)
        (tmp_path / "name").symlink_to("target")
        write(tmp_path / "name", NEW)
        assert found(tmp_path / "target") == OLD and found(tmp_path / "name") == NEW
        assert not (tmp_path / "name").is_symlink() and names(tmp_path) == ["name", "target"]

    def test_permissions_are_those_of_the_umask(self, tmp_path):
        """Also where safetensors writes, whose files only their owner can read."""
        before = os.umask(0o027)
        try:
            write_file(tmp_path / "file", NEW)
            with whole.file(tmp_path / "tensors") as new:
                save_file({"t": torch.zeros(1)}, new)
            with whole.folder(tmp_path / "folder") as new:
                (new / "inside").touch()
        finally:
            os.umask(before)
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
        assert modes == {"file": "0o640", "tensors": "0o640", "folder": "0o750", "inside": "0o640"}

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="shows what a descriptor is open on")
    def test_content_is_flushed_before_it_gets_its_name_and_the_name_after(self, tmp_path, monkeypatch):
        flushed, fsync = [], os.fsync

        def recorded(descriptor: int) -> None:
            flushed.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, found(tmp_path / "name")))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", recorded)
        write_file(tmp_path / "name", NEW)
        assert flushed == [("new", None), (tmp_path.name, NEW)]
        (tmp_path / "name").unlink()
        flushed.clear()
        write_folder(tmp_path / "name", NEW)
        assert flushed[-1] == (tmp_path.name, NEW)
        assert sorted(flushed[:-1]) == [(name, None) for name in ("a", "b", "new", "sub")]
        flushed.clear()
        write_file(tmp_path / "parent" / "sub" / "other", NEW)  # new folders keep their names too
        assert [name for name, _ in flushed] == ["parent", tmp_path.name, "new", "sub"]
