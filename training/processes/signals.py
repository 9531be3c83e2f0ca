"""Signals as a request: a run stops at once while nothing would be lost, else behind the current step."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGTERM_EXIT_CODE, SIGINT_EXIT_CODE = 143, 130  # what a shell reports for a program that a signal ended: 128 and number
_NAMES = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
OTHER_STOPS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Signals that would end a program without a word: of a closed terminal, and what batch systems announce an end by."""
PATIENCE = 0.5
"""Seconds after which another Ctrl-C is the user's: `timeout` and the like pass one on to processes that have it."""


class EndedAtOnce(SystemExit):
    """A second Ctrl-C: the user doesn't want to wait until the state is saved."""


class StopSignals:
    """Handlers of SIGTERM, SIGINT and `OTHER_STOPS` for the time of a `with` block.

    Of the others, those that are ignored (nohup) or handled already stay so. What a signal raises may be caught by a
    library, or replaced by an error of its own: the end of the block, or of what nothing is lost in, raises it again.

    Args:
        sigterm_exit_code: exit status after a SIGTERM.

    Attributes:
        exit_code: the status to end with, None while no signal has come; the first signal decides.
    """

    def __init__(self, sigterm_exit_code: int = SIGTERM_EXIT_CODE) -> None:
        self._codes = {number: 128 + number for number in OTHER_STOPS}
        self._codes |= {signal.SIGTERM: sigterm_exit_code, signal.SIGINT: SIGINT_EXIT_CODE}
        self._handlers_before: dict[int, object] = {}
        self._deferred = self._waiting = self._raised = False
        self._interrupted: float | None = None  # when Ctrl-C came first
        self.exit_code: int | None = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # Python gives signals to no other
            outer = _owner(signal.getsignal(signal.SIGTERM))
            if outer is not None and outer.exit_code is not None:
                raise SystemExit(outer.exit_code)
            numbers = (signal.SIGTERM, signal.SIGINT, *filter(_is_free, OTHER_STOPS))
            self._handlers_before = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        if self._raised and (error is None or isinstance(error, Exception)):
            raise SystemExit(self.exit_code) from error

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block a signal only sets `exit_code`; outside it ends the program, through SystemExit.

        Raises:
            SystemExit: a signal came before.
        """
        if self.exit_code is not None:
            raise SystemExit(self.exit_code)
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this part of a deferred block, where nothing is lost, a signal ends a wait: it raises SystemExit."""
        if self.exit_code is not None:
            raise SystemExit(self.exit_code)
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._is_meant_again():
            raise EndedAtOnce(SIGINT_EXIT_CODE)
        if self.exit_code is None:
            self.exit_code = self._codes[number]
        if self._waiting or not self._deferred:
            self._waiting, self._raised = False, not self._deferred
            raise SystemExit(self.exit_code)

    def _is_meant_again(self) -> bool:
        now, first = time.monotonic(), self._interrupted
        self._interrupted = now if first is None else first
        # torchrun passes on to its processes what the terminal has sent to them
        return first is not None and now - first > PATIENCE and "TORCHELASTIC_RUN_ID" not in os.environ


def _is_free(number: int) -> bool:
    handler = signal.getsignal(number)
    return handler is signal.SIG_DFL or _owner(handler) is not None


def _owner(handler: object) -> StopSignals | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, StopSignals) else None
