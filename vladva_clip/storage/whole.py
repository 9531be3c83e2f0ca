"""A file or a folder on disk that is whole or not there at all.

New content is written into a hidden scratch folder beside its place, flushed to the disk, and renamed into place.
Whenever the process is killed or the power fails, the place holds the old content or the new content, never a mixture.

The scratch folder of `NAME` is `.NAME.writing-HOST-NUMBER`, where HOST is eight hex digits that stand for this machine.
Its writer holds a lock on it, which the system frees when the process ends. So the next write of the same name can tell
what a killed process left behind, and removes it. Folders of other machines are left to `clean`, since not every
network file system shares its locks.

A link at the place is replaced, and its target stays as it is; so is a pipe or a device. Files get the permissions that
the umask gives them.
"""

import contextlib
import ctypes
import errno
import hashlib
import itertools
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from vladva_clip.storage import disk, file_locks, signals

NEW, OLD, GONE = "new", "old", "gone"  # in a scratch folder
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_SCRATCH = re.compile(r"\.(.+)\.writing-[0-9a-f]{8}-\d+", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux


def write(path: Path | str, data: bytes) -> None:
    """Write a file.

    Raises:
        OSError: as `file`.
    """
    with file(path) as new:
        new.write_bytes(data)


@contextlib.contextmanager
def file(path: Path | str) -> Iterator[Path]:
    """Give the path of a file to write within the block; when the block ends without an error, it takes its place.

    Args:
        path: the file's place. Missing parent folders are made.

    Raises:
        OSError: with the path, the reason and what to do; the old content is still there.
    """
    named, path = path, Path(path).absolute()
    if path.is_dir() and not path.is_symlink():
        _refuse(named, errno.EISDIR)
    with scratch(path, named) as place:
        yield place / NEW
        put(place / NEW, path)


@contextlib.contextmanager
def folder(path: Path | str, replace: bool = True) -> Iterator[Path]:
    """Give an empty folder to fill within the block; when the block ends without an error, it takes its place.

    Where the system can't exchange two folders in one step (outside Linux, and on some network file systems), a kill at
    the moment of replacing leaves nothing at the place; the next write, or `clean`, then puts the old folder back.

    Args:
        path: the folder's place. Missing parent folders are made.
        replace: replace a folder that is there; otherwise only an empty one.

    Raises:
        OSError: with the path, the reason and what to do; the old content is still there.
    """
    named, path = path, Path(path).absolute()
    if os.path.lexists(path) and not path.is_dir():
        _refuse(named, errno.ENOTDIR)
    with scratch(path, named) as place:
        (place / NEW).mkdir()
        yield place / NEW
        flush(place / NEW)
        if replace and os.path.lexists(path):
            _replace_folder(place / NEW, path)
        else:
            os.rename(place / NEW, path)
        flush_folder(path.parent)


def remove(path: Path | str) -> None:
    """Remove a folder. It loses its name first, so that part of it is never taken for the whole.

    Raises:
        OSError: with the path, the reason and what to do; the folder is still there.
    """
    named, path = path, Path(path).absolute()
    with scratch(path, named) as place:
        os.rename(path, place / GONE)
        flush_folder(path.parent)


def clean(directory: Path | str) -> None:
    """Remove what killed writes left in a directory, from any machine. The caller must keep other writers out.

    Raises:
        OSError: a leftover can't be removed.
    """
    directory = Path(directory)
    for leftover in list(directory.iterdir()) if directory.is_dir() else ():
        if is_scratch(leftover):
            _restore(leftover, leftover.with_name(_SCRATCH.fullmatch(leftover.name)[1]))
            shutil.rmtree(leftover)


def is_scratch(path: Path) -> bool:
    """Whether a path is a scratch folder: one in use, or what a killed write left behind."""
    return bool(_SCRATCH.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


@contextlib.contextmanager
def scratch(path: Path | str, named: Path | str | None = None) -> Iterator[Path]:
    """Give the scratch folder of a path: empty, removed with all that is in it when the block ends.

    Args:
        path: what it is for. Missing parent folders are made.
        named: what error messages call it, `path` for None.

    Raises:
        OSError: with the path, the reason and what to do, for everything that can't be written within the block.
    """
    named, path = named or path, Path(path).absolute()
    claimed: list[tuple[Path, file_locks.FolderLock | None]] = []
    writer = os.getpid()
    try:
        with disk.writing(named):
            _make_parents(path.parent)
            with signals.held_back():  # Ctrl-C between making a folder and recording it would leave it behind
                _claim(path, claimed)
        with disk.writing(named, within=claimed[0][0]):
            yield claimed[0][0]
    finally:
        if os.getpid() == writer:  # one that was forked within the block leaves its parent's files alone
            with signals.held_back():
                _give_up(claimed)


def put(new: Path, path: Path) -> None:
    """Move a file from a scratch folder to its place, with the permissions that the umask gives.

    Args:
        new: a file directly in a scratch folder.
        path: its place; a file that is there is replaced.
    """
    set_usual_mode(new)
    _flush(new)
    os.replace(new, path)
    flush_folder(path.parent)


def set_usual_mode(path: Path) -> None:
    """Give a file the permissions that the umask would give it, read off its folder, which was made a moment ago."""
    usual = stat.S_IMODE(path.parent.stat().st_mode) & 0o666 | stat.S_IRUSR | stat.S_IWUSR
    if stat.S_IMODE(path.stat().st_mode) != usual:  # safetensors makes files that only their owner can read
        path.chmod(usual)


def flush(directory: Path) -> None:
    """Flush a folder with everything in it to the disk."""
    for found, _, names in os.walk(directory):
        for path in (Path(found, name) for name in names):
            if stat.S_ISREG(path.lstat().st_mode):
                _flush(path)
        _flush(Path(found))


def flush_folder(directory: Path) -> None:
    """Flush the names in a folder to the disk, after renames in it."""
    _flush(directory)


def _refuse(path: Path | str, number: int) -> None:
    with disk.writing(path):
        raise OSError(number, os.strerror(number))


def _flush(path: Path) -> None:
    if os.name == "nt":  # opens no folders, and flushes no file that was opened to read
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems flush no folders
            raise
    finally:
        os.close(descriptor)


def _claim(path: Path, claimed: list[tuple[Path, file_locks.FolderLock | None]]) -> None:
    """Make and lock a scratch folder; empty those of the same path whose writers were killed.

    Args:
        path: what it is for.
        claimed: gets the folder and its lock (None without locks); also those that were emptied, to be removed.
    """
    for number in itertools.count():
        place = path.with_name(f".{path.name}.writing-{_HOST}-{number}")
        if claimed and not place.exists():
            return
        made = not claimed and _make(place)
        try:
            lock = file_locks.lock_folder(place)
        except (BlockingIOError, FileNotFoundError):  # its writer is alive, or has just finished
            continue
        except OSError:  # no locks here, so nothing says whose folder it is unless we made it
            lock = None
        if made or (lock is not None and _emptied(place, path)):
            claimed.append((place, lock))
        else:
            file_locks.free_folder(lock)


def _give_up(claimed: list[tuple[Path, file_locks.FolderLock | None]]) -> None:
    for place, lock in claimed:
        try:
            shutil.rmtree(place, ignore_errors=True)
        finally:
            file_locks.free_folder(lock)


def _make_parents(directory: Path) -> None:
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for made in missing:
        flush_folder(made.parent)


def _make(place: Path) -> bool:
    try:
        place.mkdir()
    except FileExistsError:
        return False
    return True


def _restore(place: Path, path: Path) -> None:
    """Put back what a process that was killed between two renames had moved out of the way."""
    if os.path.lexists(place / OLD) and not os.path.lexists(path):
        os.rename(place / OLD, path)


def _emptied(place: Path, path: Path) -> bool:
    """Empty what a killed process left of a path; False if it belongs to a user who doesn't let us."""
    if not os.access(place, os.W_OK | os.X_OK):
        return False
    try:
        _restore(place, path)
        for inside in place.iterdir():
            shutil.rmtree(inside) if inside.is_dir() and not inside.is_symlink() else inside.unlink()
    except OSError:
        return False
    return True


def _replace_folder(new: Path, path: Path) -> None:
    """Put a new folder in the place of another, which stays in the scratch folder."""
    if _exchange(new, path):
        return
    old = new.with_name(OLD)
    try:
        os.rename(path, old)
        os.rename(new, path)
    except BaseException:
        _restore(new.parent, path)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two paths in one step; False where the system can't."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    return call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0
