"""Waits for a DataLoader's next batch. Whatever happens to the workers, the wait ends with a reason."""

import contextlib
import multiprocessing
import re
import signal
import threading
from collections.abc import Generator, Iterator
from multiprocessing import connection
from typing import Any

from torch.utils.data import DataLoader

from vladva_clip.workers import shared_memory, signals
from vladva_clip.workers.shared_memory import Prefetch

LIMIT = 600.0
"""Seconds to wait for a batch."""
_QUALIFIED = re.compile(r"^(\w+\.)+(?=\w+:)")  # of an exception's class

_OF_MEMORY = ", as the system does when memory runs out: use fewer workers or smaller batches"
_DEATHS_BY_MEMORY = {getattr(signal, name) for name in ("SIGKILL", "SIGBUS") if hasattr(signal, name)}


def worker_options(prefetch: Prefetch, start_method: str | None = None) -> dict[str, Any]:
    """Return the worker arguments of a `DataLoader` that is read by `batches`."""
    if not prefetch.num_workers:
        return {}
    return {
        "num_workers": prefetch.num_workers,
        "prefetch_factor": prefetch.ahead,
        "worker_init_fn": signals.init_worker,
        "multiprocessing_context": start_method,
    }


class LoaderError(ValueError):
    """Why no more batches can be read, in one line."""


def batches(loader: DataLoader, limit: float = LIMIT) -> Generator:
    """Start a loader's workers and return a generator of its batches; closing it kills them.

    Args:
        loader: made with `worker_options`.
        limit: seconds to wait for a batch; 0 for no limit.

    Raises:
        LoaderError: a worker failed, was killed or took too long. Without workers, errors are raised unchanged.
    """
    if not loader.num_workers:
        return (batch for batch in loader)
    return _read(_Waiting(loader, _start(loader), limit))


def _read(waiting: "_Waiting") -> Generator:
    try:
        yield from waiting
    finally:
        _kill(waiting.reader)


class _Waiting:
    """The batches of a loader with workers."""

    def __init__(self, loader: DataLoader, reader: Iterator, limit: float) -> None:
        self.loader, self.reader, self.limit, self.count, self.late = loader, reader, limit, 0, ""

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> object:
        try:
            with signals.deaths_noticed(), self._limited():
                batch = next(self.reader)
        except StopIteration as end:
            if not end.args:
                raise
            raise LoaderError(self._explained(end)) from end  # a worker's own
        except Exception as error:
            raise LoaderError(self.late or self._explained(error)) from error
        self.count += 1
        return batch

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Kill the workers if the wait takes too long.

        Only their death ends the wait in every case: DataLoader's own timeout has no effect while a batch is fetched
        from a worker that stopped in the middle of sending it.
        """
        timer = threading.Timer(self.limit, self._end_late)
        timer.daemon = True
        if self.limit:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end_late(self) -> None:
        number = self.count % self.loader.num_workers  # they take turns
        self.late = (
            f"loader worker {number} (pid {self.reader._workers[number].pid}) sent no batch for {self.limit:g} s: it "
            f"hangs, or its data is too slow for this limit ({shared_memory.figures()})"
        )
        for worker in self.reader._workers:
            worker.kill()

    def _explained(self, error: Exception) -> str:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        what = _QUALIFIED.sub("", _message(lines))
        if "in DataLoader worker process" in lines[0]:
            return f"loader worker {lines[0].rstrip('.').rpartition(' ')[2]}: {what}"
        found = f"{self.loader.num_workers} workers, {shared_memory.figures()}"
        return f"{self._death() or what.rstrip(' .')} ({found})"

    def _death(self) -> str:
        """Describe which worker died, and how; empty if all are alive."""
        processes = self.reader._workers
        connection.wait([process.sentinel for process in processes], timeout=5)  # the error may come before its death
        for number, process in enumerate(processes):
            process.join(0.01)  # its pipe, the sentinel, closes before its exit code is known
            if process.exitcode is not None:
                what = f"was killed by {signal.Signals(-process.exitcode).name}" if process.exitcode < 0 else "ended"
                advice = _OF_MEMORY if -process.exitcode in _DEATHS_BY_MEMORY else ""
                return f"loader worker {number} (pid {process.pid}) {what}{advice}"
        return ""


def _message(lines: list[str]) -> str:
    """Return the line with the error: the one after the last frame of a worker's traceback, else the last."""
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    behind = lines[frames[-1] + 1 :] if frames else []
    return next((line for line in behind if not line.startswith(" ")), lines[-1])


def _start(loader: DataLoader) -> Iterator:
    try:
        multiprocessing.Lock()  # fails as torch's reader would, which can't be cleaned up if half made
        with signals.sigterm_blocked():
            reader = iter(loader)
    except OSError as error:
        found = shared_memory.figures()
        raise LoaderError(f"{loader.num_workers} loader workers can't be started: {error} ({found})") from error
    signals.hold_back_deaths()
    reader._workers_done_event = _Done(reader._workers_done_event)
    return reader


class _Done:
    """torch's event that tells workers to end; a worker killed while it looked would make setting it hang for ever,
    since it took the event's lock with it.
    """

    PATIENCE = 5.0
    """Seconds until workers that could not be told are left to torch, which terminates them."""

    def __init__(self, event: Any) -> None:
        self._event, self._is_set = event, False

    def set(self) -> None:
        self._is_set = True
        telling = threading.Thread(target=self._event.set, daemon=True)
        telling.start()
        telling.join(self.PATIENCE)

    def is_set(self) -> bool:
        return self._is_set


def _kill(reader: Iterator) -> None:
    """Kill the workers at once: they hold no state, and torch would wait for one that hangs or died."""
    for worker in reader._workers:
        worker.kill()
    if vars(reader).pop("_pin_memory_thread", None) is not None:  # it may wait for a dead worker's message
        reader._pin_memory_thread_done_event.set()
    reader._workers_done_event = threading.Event()  # nobody is left to be told, and who is dead may hold its lock
    reader._shutdown_workers()
