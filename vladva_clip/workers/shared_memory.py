"""Shared memory between a loader and its workers: what is free, what batches need, and errors that state both.

torch would move a batch into shared memory in the thread that feeds its queue. An error there is only printed: the
batch is lost, and the loader waits for it forever. So a worker moves the batch before queueing it, where an error is
reported.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import get_worker_info

from vladva_clip.interface.machine import available_memory, in_words, local_processes

PLACE = Path("/dev/shm")
SHARED_BYTES = 65536  # tensors of this size or more go through shared memory
AHEAD = 2  # batches that each worker prepares ahead, torch's own number
SHARE_OF_SHARED, SHARE_OF_MEMORY = 0.8, 0.5
"""Shares of the free shared memory and of the available memory that loaders may use."""


class SharedMemoryError(ValueError):
    """There is too little shared memory for the batches."""


@dataclass(frozen=True)
class Prefetch:
    """How many processes read and how many batches each prepares ahead; `note` says what was reduced, and why."""

    num_workers: int
    ahead: int = AHEAD
    note: str = ""

    def shared_bytes(self, batch_bytes: int) -> int:
        """Return the bytes of all batches that exist at once, including the one in use."""
        held = self.num_workers * self.ahead + 1 if self.num_workers else 0
        return held * batch_bytes if batch_bytes >= SHARED_BYTES else 0

    def memory_bytes(self, batch_bytes: int) -> int:
        """Return the same plus what the workers need to assemble a batch: its rows, and the stacked rows."""
        return self.shared_bytes(batch_bytes) + 2 * self.num_workers * batch_bytes


def free_bytes() -> int | None:
    """Return the free bytes of /dev/shm; None on systems without it (macOS, Windows)."""
    try:
        found = os.statvfs(PLACE)
    except (OSError, AttributeError):
        return None
    return found.f_bavail * found.f_frsize


def fit(num_workers: int, batch_bytes: int) -> Prefetch:
    """Return a prefetch that fits in memory, reducing first the batches ahead, then the workers.

    Args:
        num_workers: how many are requested.
        batch_bytes: bytes of a batch's large tensors.

    Raises:
        SharedMemoryError: shared memory is too small even for one worker with one batch ahead.
    """
    wanted = Prefetch(num_workers)
    shared, memory = _limits()
    tried = [wanted, *(Prefetch(workers, 1) for workers in range(num_workers, 0, -1))]
    allowed = [plan for plan in tried if plan.shared_bytes(batch_bytes) <= shared]
    if not allowed:
        raise SharedMemoryError(_shortage(batch_bytes, wanted, tried[-1]))
    chosen = next((plan for plan in allowed if plan.memory_bytes(batch_bytes) <= memory), allowed[-1])
    if chosen == wanted:
        return wanted
    return Prefetch(chosen.num_workers, chosen.ahead, _lowered(batch_bytes, wanted, chosen))


def share(tensors: Sequence[torch.Tensor]) -> None:
    """Move tensors into shared memory, in place, if this is a loader's worker; otherwise do nothing.

    Raises:
        SharedMemoryError: there is too little shared memory.
    """
    if get_worker_info() is None:
        return
    needed, found = sum(tensor.nbytes for tensor in tensors if not tensor.is_shared()), free_bytes()
    if found is not None and needed > found:  # torch's attempt would leave an empty file in /dev/shm
        raise SharedMemoryError(f"a batch takes {in_words(needed)} of shared memory, found {figures()}: {_advice()}")
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise SharedMemoryError(f"a batch of {in_words(needed)} can't be shared ({reason}): {_advice()}") from error


def figures() -> str:
    """Return what is free, as text for a message."""
    found = {f"free in {PLACE}": free_bytes(), "of memory available": available_memory()}
    return ", ".join(f"{in_words(size)} {what}" for what, size in found.items() if size is not None)


def shm_size(needed: int) -> str:
    """Return docker's option for the needed shared memory plus the share that must stay free."""
    return f"--shm-size={math.ceil(needed / SHARE_OF_SHARED / 2**30)}g"


def _limits() -> tuple[float, float]:
    """Bytes of shared memory and of memory in all that this process's loader may use."""
    parts = ((free_bytes(), SHARE_OF_SHARED), (available_memory(), SHARE_OF_MEMORY))
    shared, memory = (math.inf if found is None else found * part / local_processes() for found, part in parts)
    return shared, memory


def _needs(batch_bytes: int, wanted: Prefetch) -> str:
    return (
        f"{wanted.num_workers} workers x {wanted.ahead} batches of {in_words(batch_bytes)} need "
        f"{in_words(wanted.shared_bytes(batch_bytes))} of shared memory and "
        f"{in_words(wanted.memory_bytes(batch_bytes))} of memory in all{_each()}, found {figures()} "
        f"(of which {SHARE_OF_SHARED:.0%} and {SHARE_OF_MEMORY:.0%} may be used)"
    )


def _lowered(batch_bytes: int, wanted: Prefetch, chosen: Prefetch) -> str:
    needed = wanted.shared_bytes(batch_bytes)
    way_out = f"; run a container with {shm_size(needed * local_processes())}" if needed > _limits()[0] else ""
    return f"{_needs(batch_bytes, wanted)}: reading with {chosen.num_workers} x {chosen.ahead} instead{way_out}"


def _shortage(batch_bytes: int, wanted: Prefetch, least: Prefetch) -> str:
    return (
        f"{_needs(batch_bytes, wanted)}, and even one worker needs {in_words(least.shared_bytes(batch_bytes))}: run "
        f"the container with {shm_size(wanted.shared_bytes(batch_bytes) * local_processes())} (docker run), or read "
        "without workers (num_workers 0), or use a smaller batch"
    )


def _each() -> str:
    return f" in each of {local_processes()} processes" if local_processes() > 1 else ""


def _advice() -> str:
    return "run the container with a larger --shm-size (docker run), or use fewer workers or a smaller batch"
