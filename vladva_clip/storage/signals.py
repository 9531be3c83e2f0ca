"""Ctrl-C and other signals, held back for a moment that must not be cut in two."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Delay signal handlers until this block ends. It is for a few system calls, not for long work.

    Python runs handlers in the main thread only, so in other threads there is nothing to delay.
    """
    handlers: dict[int, Callable] = {}
    came: list[tuple[int, FrameType | None]] = []
    over = False

    def receive(number: int, frame: FrameType | None) -> object:
        if over:  # another handler raised before this one's was put back
            return handlers[number](number, frame)
        came.append((number, frame))

    try:
        if threading.current_thread() is threading.main_thread():
            for number in signal.valid_signals():
                if callable(handler := signal.getsignal(number)):
                    handlers[number] = handler
                    signal.signal(number, receive)
        yield
    finally:
        over = True
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came:
            handlers[number](number, frame)
