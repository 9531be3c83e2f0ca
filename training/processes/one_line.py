"""An error in one line."""

import torch

from vladva_clip.interface.addresses import without_addresses

OUT_OF_MEMORY = "out of memory: lower batch.micro_size, or data.num_workers if it was the machine's memory"


def in_one_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its text."""
    text = without_addresses((str(error).strip().splitlines() or [""])[0]).rstrip(".")
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"{OUT_OF_MEMORY}{f' ({text})' if text else ''}"
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"
