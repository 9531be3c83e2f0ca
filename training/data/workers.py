"""How a loader's worker processes take signals: a signal to the whole job is the main process's affair.

The main process saves its state and ends the workers. Where Python has no `sigwaitinfo` (macOS, Windows) workers can't
tell who sent a SIGTERM, and end by it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from vladva_training.processes.signals import OTHER_STOPS

_TELLS_SENDERS = hasattr(signal, "sigwaitinfo")


@contextlib.contextmanager
def sigterm_blocked() -> Iterator[None]:
    """Make the workers within this block, so that every thread of theirs has SIGTERM blocked from its start.

    `init_worker` alone is too late for a thread that a library makes in each forked process (lancedb is one).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) if _TELLS_SENDERS else None
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker(worker: int) -> None:
    """Leave Ctrl-C, a closed terminal, and a SIGTERM of anybody else, to the main process; for `worker_init_fn`."""
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
    """torch's handler of SIGCHLD, which raises where a worker has died, kept from doing so in the middle of a step."""

    def __init__(self, handler: Callable) -> None:
        self.handler, self.waiting = handler, False

    def __call__(self, number: int, frame: object) -> None:
        if self.waiting:
            self.handler(number, frame)


def hold_back_deaths() -> None:
    """Let a worker's death be noticed within `deaths_noticed` alone; call it after a DataLoader started workers."""
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if _in_main_thread() and callable(handler) and not isinstance(handler, _OnlyWhileWaiting):
        signal.signal(signal.SIGCHLD, _OnlyWhileWaiting(handler))


@contextlib.contextmanager
def deaths_noticed() -> Iterator[None]:
    """Within this block a worker's death is an error at once, one of before too; elsewhere torch notices it later.

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
