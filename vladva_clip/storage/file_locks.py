"""One writer at a time in a directory: locks that the system frees when their process ends, however it ends."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
logger = logging.getLogger(__name__)

_held: set[int] = set()  # descriptors; a process forked meanwhile must not keep its parent's locks
_forks_watched = False


@contextlib.contextmanager
def held(path: Path, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a file's lock within a block. The file says who holds it, and goes when the last one leaves.

    Without locks (Windows, some network file systems) the block runs unprotected, and a warning says so.

    Args:
        path: the lock's file, in a directory that is there.
        shared: with others that ask for it so, and with nobody else.
        wait: until it is free.

    Raises:
        ValueError: another process holds it.
        OSError: the file can't be made.
    """
    _watch_forks()
    descriptor = _open_locked(path, shared, wait)
    _held.add(descriptor)
    try:
        if not shared:
            _sign(descriptor)
        yield
    finally:
        if descriptor in _held:  # and not in a process that was forked within the block
            _held.discard(descriptor)
            _leave(descriptor, path)


def _open_locked(path: Path, shared: bool, wait: bool) -> int:
    """Open and lock the file; open it again if its holder removed it meanwhile: that lock would keep nobody out."""
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
        logger.warning("no locks on this system: nothing keeps a second process from writing to %s", path.parent)
        return
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise ValueError(
            f"another process{_signature(descriptor)} is writing to {path.parent}; wait for it, end it, or name "
            "another directory"
        ) from error
    except OSError as error:
        logger.warning("%s can't be locked (%s): nothing keeps a second process from writing there", path.parent, error)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _leave(descriptor: int, path: Path) -> None:
    """Free the lock; its file goes first, unless others share it."""
    with contextlib.suppress(OSError):
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    os.close(descriptor)


def _sign(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a full disk; the lock holds all the same
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
        os.register_at_fork(after_in_child=_close_all)
        _forks_watched = True


def _close_all() -> None:
    while _held:
        os.close(_held.pop())
