"""What goes wrong while something is written, as one kind of error whichever library wrote."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""A disk, a user's share of it, or the size allowed to a file."""
_SAID = "can't be written"  # by a block of this kind within ours
_RUST = re.compile(r"os error (\d+)")  # safetensors' and tokenizers' errors hold the number in their text alone
_TORCH = re.compile(r"PytorchStreamWriter|inline_container")


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Write to a path within this block.

    Raises:
        OSError: with the path and what to do, where the system refuses: also instead of a SafetensorError, of the bare
            Exception that tokenizers raises, and of the RuntimeError of `torch.save`.
    """
    try:
        yield
    except Exception as error:  # a full disk has no class of its own in these libraries; all others go on as they are
        number = _number(error)
        if number is None or _SAID in str(error):
            raise
        advice = " (the disk or its quota is full: make room and write again)" if number in FULL else ""
        raise OSError(number, f"{path} {_SAID}: {_reason(error, number)}{advice}") from error


def _number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if found := _RUST.search(str(error)):
        return int(found[1])
    return errno.EIO if isinstance(error, RuntimeError) and _TORCH.search(str(error)) else None


def _reason(error: Exception, number: int) -> str:
    if not isinstance(error, OSError):
        return os.strerror(number)
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
