"""Files that are whole or absent: written beside their place, then renamed."""

import os
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Write a file; a reader sees the old one or the new one, and a failure leaves no part of it behind.

    Raises:
        ValueError: the disk is full, or the place can't be written; what was written before stays.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        raise ValueError(
            f"{path} can't be written ({error.strerror}): make room or name another place. All that was finished "
            "before is kept, and the same command goes on from there"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)
