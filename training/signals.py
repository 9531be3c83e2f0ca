"""SIGTERM and SIGINT as a request: a run stops at once while nothing would be lost, else behind the current step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGINT_EXIT_CODE = 130  # what a shell reports for a program that Ctrl-C ended


class StopSignals:
    """Handlers of SIGTERM and SIGINT for the time of a `with` block.

    Args:
        sigterm_exit_code: exit status after a SIGTERM.

    Attributes:
        exit_code: the status to end with, None while no signal has come; the first signal decides.
    """

    def __init__(self, sigterm_exit_code: int) -> None:
        self._codes = {signal.SIGTERM: sigterm_exit_code, signal.SIGINT: SIGINT_EXIT_CODE}
        self._handlers_before: dict[int, object] = {}
        self._deferred = False
        self.exit_code: int | None = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # Python gives signals to no other
            self._handlers_before = {number: signal.signal(number, self._receive) for number in self._codes}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block a signal only sets `exit_code`; outside it ends the program, through SystemExit."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is None:
            self.exit_code = self._codes[number]
        if not self._deferred:
            raise SystemExit(self.exit_code)
