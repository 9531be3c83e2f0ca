"""How a loader's worker processes handle signals: a signal to the whole job is left to the main process.

The main process saves its state and ends the workers. On systems without `sigwaitinfo` (macOS, Windows) workers can't
see who sent a SIGTERM, so it ends them.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from vladva_clip.interface.interrupts import OTHER_STOPS

_TELLS_SENDERS = hasattr(signal, "sigwaitinfo")


@contextlib.contextmanager
def sigterm_blocked() -> Iterator[None]:
    """Start workers within this block, so that all their threads have SIGTERM blocked from the start.

    `init_worker` alone is too late for threads that a library starts in each forked process (as lancedb does).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) if _TELLS_SENDERS else None
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cpus() -> int:
    """Return the number of CPUs that this process may use; more workers would wait for each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def init_worker(worker: int) -> None:
    """Ignore Ctrl-C, a closed terminal, and SIGTERM unless the main process sent it; for `worker_init_fn`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tokenizers would warn that it was forked
    for number in (signal.SIGINT, *OTHER_STOPS):
        signal.signal(number, signal.SIG_IGN)
    if _TELLS_SENDERS:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # not inherited from a fork server
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class _OnlyWhileWaiting:
    """Wraps torch's SIGCHLD handler, which raises if a worker died, so that it does not raise during a step."""

    def __init__(self, handler: Callable) -> None:
        self.handler, self.waiting = handler, False

    def __call__(self, number: int, frame: object) -> None:
        if self.waiting:
            self.handler(number, frame)


def hold_back_deaths() -> None:
    """Notice a worker's death only within `deaths_noticed`. Call this after a DataLoader has started its workers."""
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if _in_main_thread() and callable(handler) and not isinstance(handler, _OnlyWhileWaiting):
        signal.signal(signal.SIGCHLD, _OnlyWhileWaiting(handler))


@contextlib.contextmanager
def deaths_noticed() -> Iterator[None]:
    """Raise at once if a worker dies within this block or has died before; elsewhere torch notices it later.

    Raises:
        RuntimeError: a worker has died.
    """
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if not (_in_main_thread() and isinstance(handler, _OnlyWhileWaiting)):
        yield
        return
    handler.waiting = True
    try:
        handler(signal.SIGCHLD, None)
        yield
    finally:
        handler.waiting = False


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
