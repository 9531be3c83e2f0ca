"""Signals as requests to stop: a run stops at once if nothing would be lost, otherwise after the current step."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from vladva_clip.interface import interrupts
from vladva_clip.interface.interrupts import OTHER_STOPS

SIGTERM_EXIT_CODE, SIGINT_EXIT_CODE = 143, 130  # as a shell reports a program ended by a signal: 128 + its number
INTERRUPTED = "vladva-train: interrupted"
PATIENCE = 0.5
"""Seconds after which another Ctrl-C is a new one by the user: `timeout` and the like pass the same one on twice."""


class EndedAtOnce(SystemExit):
    """A second Ctrl-C: the user doesn't want to wait for the state to be saved."""


class StopSignals:
    """Handles SIGTERM, SIGINT and `OTHER_STOPS` within a `with` block.

    Those of `OTHER_STOPS` that are ignored (nohup) or already handled stay so. A library may catch the exception
    that a signal raises, or replace it by its own error; it is therefore raised again at the end of the block.

    Args:
        sigterm_exit_code: exit status after a SIGTERM.

    Attributes:
        exit_code: the exit status, decided by the first signal; None before any signal.
    """

    def __init__(self, sigterm_exit_code: int = SIGTERM_EXIT_CODE) -> None:
        self._codes = {number: 128 + number for number in OTHER_STOPS}
        self._codes |= {signal.SIGTERM: sigterm_exit_code, signal.SIGINT: SIGINT_EXIT_CODE}
        self._handlers_before: dict[int, object] = {}
        self._deferred = self._waiting = self._raised = False
        self._interrupted: float | None = None  # when Ctrl-C came first
        self.exit_code: int | None = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # the only one that receives signals in Python
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
        """Within this block a signal only sets `exit_code`; elsewhere it ends the program through SystemExit.

        Raises:
            SystemExit: a signal arrived before the block.
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
        """Within this part of a deferred block nothing can be lost, so a signal raises SystemExit at once."""
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
            interrupts.leave_an_import(frame, self.exit_code, INTERRUPTED if number == signal.SIGINT else "")
            self._waiting, self._raised = False, not self._deferred
            raise SystemExit(self.exit_code)

    def _is_meant_again(self) -> bool:
        now, first = time.monotonic(), self._interrupted
        self._interrupted = now if first is None else first
        # torchrun sends its processes the signal that the terminal has already sent to them
        return first is not None and now - first > PATIENCE and "TORCHELASTIC_RUN_ID" not in os.environ


def _is_free(number: int) -> bool:
    handler = signal.getsignal(number)
    return handler is signal.SIG_DFL or _owner(handler) is not None


def _owner(handler: object) -> StopSignals | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, StopSignals) else None
