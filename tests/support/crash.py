"""Runs a call in a child process that ends in the middle of it, as after a power cut: no clean-up runs."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path


def cut_short(call: Callable[[], object], directory: Path, nth: int) -> bool:
    """Run `call` in a fork that ends just before its nth rename or removal of a file below `directory`.

    Returns:
        Whether the call was cut; False when it made fewer changes and came to its end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forks beside torch's threads, which the call leaves idle
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that hangs all the same
        _die_at(nth, directory)
        try:
            call()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, 9):
        raise RuntimeError(f"the call failed in the child process, with status {status}")
    return status == 9


def _die_at(nth: int, directory: Path) -> None:
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in ("os.rename", "os.remove") and str(arguments[0]).startswith(str(directory)):
            seen += 1
            if seen == nth:
                os._exit(9)

    sys.addaudithook(hook)
