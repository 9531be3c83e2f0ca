"""One writer at a time: locks on files and folders, which the system frees when their process ends, however it ends."""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
logger = logging.getLogger(__name__)

_held: set[int] = set()  # descriptors; a forked process must give them up, or it would keep its parent's locks
_forks_watched = False


@contextlib.contextmanager
def held(path: Path, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file within a block. The file names the holder, and the last holder removes it.

    Without locks (Windows, some network file systems) the block runs unprotected, with a warning.

    Args:
        path: the lock's file, in an existing directory.
        shared: share the lock with others that pass True here; nobody else can hold it at the same time.
        wait: wait until the lock is free, instead of raising.

    Raises:
        ValueError: another process holds the lock.
        OSError: the file can't be made.
    """
    _watch_forks()
    descriptor = _open_locked(path, shared, wait)
    _held.add(descriptor)
    holder = os.getpid()
    try:
        if not shared:
            _sign(descriptor)
        yield
    finally:
        if os.getpid() == holder:  # a process that was forked within the block holds nothing
            _held.discard(descriptor)
            _leave(descriptor, path)


class FolderLock(NamedTuple):
    """A locked folder's descriptor, and the process that locked it: a forked one reuses the number for another file."""

    descriptor: int
    holder: int


def lock_folder(path: Path) -> FolderLock:
    """Lock a folder until the lock goes to `free_folder`, or the process ends.

    Raises:
        BlockingIOError: someone else holds the lock.
        FileNotFoundError: the folder is gone.
        OSError: folders can't be locked here (Windows, some network file systems).
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    _watch_forks()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(descriptor, path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except BaseException:
        os.close(descriptor)
        raise
    _held.add(descriptor)
    return FolderLock(descriptor, os.getpid())


def free_folder(lock: FolderLock | None) -> None:
    """Free what `lock_folder` locked; nothing for None, and nothing in a process that was forked meanwhile."""
    if lock is not None and lock.holder == os.getpid():
        _held.discard(lock.descriptor)
        os.close(lock.descriptor)


def _open_locked(path: Path, shared: bool, wait: bool) -> int:
    """Open and lock the file; again if its holder removed it meanwhile, since that lock would keep nobody out."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(descriptor, path, shared, wait)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(descriptor: int, path: Path, shared: bool, wait: bool) -> None:
    if fcntl is None:
        logger.warning("no locks on this system: a second process could write to %s at the same time", path.parent)
        return
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise ValueError(
            f"another process{_signature(descriptor)} is writing to {path.parent}; wait for it, end it, or name "
            "another directory"
        ) from error
    except OSError as error:
        logger.warning("%s can't be locked (%s): a second process could write there too", path.parent, error)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _leave(descriptor: int, path: Path) -> None:
    """Remove the lock's file, unless others share the lock, then free it."""
    with contextlib.suppress(OSError):
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    os.close(descriptor)


def _sign(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a signature
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode())


def _signature(descriptor: int) -> str:
    with contextlib.suppress(OSError):
        words = os.read(descriptor, 200).decode(errors="replace").strip()
        if words.isprintable() and words:
            return f" ({words})"
    return ""


def _watch_forks() -> None:
    global _forks_watched
    if not _forks_watched and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_give_up_all)
        _forks_watched = True


def _give_up_all() -> None:
    """Put the null device at their numbers: a closed number would be used again, and whoever had it could close it."""
    with open(os.devnull, "rb") as nothing:
        while _held:
            os.dup2(nothing.fileno(), _held.pop(), inheritable=False)
