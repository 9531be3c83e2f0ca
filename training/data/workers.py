"""How a loader's worker processes take signals: a signal to the whole job is the main process's affair.

The main process saves its state and ends the workers. Where Python has no `sigwaitinfo` (macOS, Windows) workers can't
tell who sent a SIGTERM, and end by it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

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
    """Leave Ctrl-C, and a SIGTERM of anybody else, to the main process; for `worker_init_fn`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tokenizers would warn that it was forked
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _TELLS_SENDERS:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # not inherited from a fork server
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
