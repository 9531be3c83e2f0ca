"""Ctrl-C in a command: it ends the command with one line, whatever a library makes of it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

STATUS = 130
"""Exit status after Ctrl-C: 128 + the signal's number."""
_NAMES = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
OTHER_STOPS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Signals that would end a program silently: a closed terminal's, and those by which batch systems announce an end."""
_AGAIN = 0.05  # seconds
_IMPORT = "<frozen importlib._bootstrap>"
_WRITES = os.path.join("vladva_clip", "storage", "whole.py")


def leave_an_import(frame: FrameType | None, status: int, line: str = "") -> None:
    """End the process at once if it is importing a module; return otherwise.

    An exception in the middle of `import torch` can reach its C++ code, which aborts the process; other libraries
    swallow it. Nothing of ours is open then, except within a write (`storage.whole`), which is not cut off. An
    interactive session, such as a notebook that calls a command's `main`, has more to lose, and is never ended.

    Args:
        frame: where the signal came, as a handler gets it.
        status: the exit status.
        line: what to print on stderr; "" for nothing.
    """
    if hasattr(sys, "ps1"):  # set by Python's prompt, IPython and Jupyter's kernel
        return
    files = set()
    while frame is not None:
        files.add(frame.f_code.co_filename)
        frame = frame.f_back
    if _IMPORT not in files or any(file.endswith(_WRITES) for file in files):
        return
    if line:
        with contextlib.suppress(OSError):
            os.write(2, f"{line}\n".encode(errors="replace"))
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(status)


@contextlib.contextmanager
def kept(line: str) -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of the block if Ctrl-C came in it, though a library swallowed the exception.

    Imports do that: what is interrupted in them may come out as an ImportError or as the library's own error. In a
    destructor, where Python drops every exception, it is raised a moment later. A handler of the caller's stays in
    place, and so does an ignored signal; other threads than the main one are left alone, and forked processes, such as
    workers that read data, get Python's own handler's behavior: they say nothing.

    Args:
        line: what to print when the process ends in the middle of an import (see `leave_an_import`).

    Raises:
        KeyboardInterrupt: Ctrl-C came within the block.
    """
    came, process, again = False, os.getpid(), None

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal came, again
        if os.getpid() == process:
            leave_an_import(frame, STATUS, line)
            came = True
            if _in_destructor(frame):  # Python would print the exception, drop it, and go on
                again = threading.Timer(_AGAIN, os.kill, (process, number))
                again.daemon = True
                again.start()
                return
        signal.default_int_handler(number, frame)

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, receive)
    try:
        yield
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        if again is not None:
            again.cancel()
        if signal.getsignal(signal.SIGINT) is receive:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def _in_destructor(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
