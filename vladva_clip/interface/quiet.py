"""Keeps transformers' own lines out of a call of ours: its progress bars and its table of missing tensors.

Its switches are global. They are replaced while at least one call is quiet, act only in the threads of these calls,
and are as before after the last one. Bars of downloads come from huggingface_hub and are not touched.
"""

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

LARGE = 2 * 10**9
"""Bytes of weights above which reading or writing takes long enough for a progress bar."""
_lock = threading.Lock()
_calls = 0  # quiet calls now running, in all threads


class _Here(threading.local):
    """What is hidden in this thread."""

    bars = reports = False


_here = _Here()


class _Switch:
    """Takes the place of transformers' switch for its bars: off in this thread's quiet calls, elsewhere as before."""

    def __init__(self, before: object) -> None:
        self.before = before

    def __bool__(self) -> bool:
        return bool(self.before) and not _here.bars


@contextlib.contextmanager
def quiet_transformers(large: bool = False) -> Iterator[None]:
    """Hide transformers' progress bars and its LOAD REPORT in this thread; the caller checks what it would report.

    Args:
        large: reading or writing takes long (see `LARGE`): on a terminal the bars stay.
    """
    earlier = _here.bars, _here.reports
    _here.bars, _here.reports = not (large and _is_terminal()), True
    _enter()
    try:
        yield
    finally:
        _leave()
        _here.bars, _here.reports = earlier


@contextlib.contextmanager
def unclosed_files_ignored() -> Iterator[None]:
    """Ignore files that a library leaves open, which Python reports under `-W default`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)
        yield


def warn(text: str) -> None:
    """Warn at the line outside our packages that led here."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("vladva_clip", "vladva_training", "vladva_benchmarks")


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _enter() -> None:
    global _calls
    theirs, log = _transformers()
    with _lock:
        _calls += 1
        if _calls == 1:
            theirs._tqdm_active = _Switch(getattr(theirs, "_tqdm_active", True))
            log.addFilter(_is_wanted)


def _leave() -> None:
    global _calls
    theirs, log = _transformers()
    with _lock:
        _calls -= 1
        if _calls == 0:
            log.removeFilter(_is_wanted)
            if isinstance(theirs._tqdm_active, _Switch):  # else the user has switched the bars on or off meanwhile
                theirs._tqdm_active = theirs._tqdm_active.before


def _transformers() -> tuple[Any, logging.Logger]:
    from transformers.utils import logging as theirs

    return theirs, logging.getLogger("transformers.modeling_utils")


def _is_wanted(record: logging.LogRecord) -> bool:
    return not (_here.reports and "LOAD REPORT" in record.getMessage())
