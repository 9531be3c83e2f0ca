"""Errors of writing as one kind of exception, whichever library wrote."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""No room on the disk, or in a user's quota, or within the size limit of a file."""
_BAD_DISK = FULL | {errno.EIO, errno.EROFS}
_SAID = "can't be written"  # part of every message of `writing`
_COPY = re.compile(r"\[Errno (\d+)\]")  # `shutil.copytree` collects its errors as texts
_RUST = re.compile(r"os error (\d+)")  # safetensors and tokenizers give the error number only in the text
_TORCH = re.compile(r"PytorchStreamWriter|inline_container")


@contextlib.contextmanager
def writing(path: Path | str, within: Path | None = None) -> Iterator[None]:
    """Turn the errors of writing in this block into an OSError with the path, the reason and what to do.

    That includes safetensors' SafetensorError, the bare Exception that tokenizers raises, and the RuntimeError of
    `torch.save`. All other errors pass as they are.

    Args:
        path: what is being written, for the message.
        within: where the block writes, if it also does other work: then errors of other files pass as they are.

    Raises:
        OSError: the system refuses to write.
    """
    try:
        yield
    except Exception as error:  # the libraries have no class for a full disk
        number = _number(error)
        if number is None or _SAID in str(error) or not _concerns(error, number, within):
            raise
        advice = " (the disk or its quota is full: make room and write again)" if number in FULL else ""
        raise OSError(number, f"{path} {_SAID}: {_reason(error, number, within)}{advice}") from error


def reason(error: OSError) -> str:
    """Return why writing failed, without the path that `writing` puts in front."""
    return (error.strerror or str(error)).rpartition(f"{_SAID}: ")[2]


def refusal(path: Path, error: OSError) -> str:
    """Return what to say when a long command can't write a file: why, and that nothing finished is lost."""
    return (
        f"{path} can't be written ({reason(error)}): make room or name another place, and run the same "
        "command again; finished results are kept"
    )


def _number(error: Exception) -> int | None:
    if isinstance(error, shutil.Error) and (found := _COPY.search(str(error))):
        return int(found[1])
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if found := _RUST.search(str(error)):
        return int(found[1])
    return errno.EIO if isinstance(error, RuntimeError) and _TORCH.search(str(error)) else None


def _concerns(error: Exception, number: int, within: Path | None) -> bool:
    """Whether an error is about writing below `within`; a network's errors are OSErrors too, without a number."""
    if within is None:
        return True
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        return Path(os.fsdecode(error.filename)).is_relative_to(within)
    nameless = isinstance(error, OSError) and error.errno is None and not isinstance(error, shutil.Error)
    return number in _BAD_DISK and not nameless


def _reason(error: Exception, number: int, within: Path | None) -> str:
    if not isinstance(error, OSError) or isinstance(error, shutil.Error):
        return os.strerror(number)
    name = error.filename
    if name and within is not None:  # the name that the file will have, not the one of its scratch folder
        name = "/".join(Path(os.fsdecode(name)).relative_to(within).parts[1:])
    return f"{error.strerror or error}" + (f" ({name})" if name else "")
