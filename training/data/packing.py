"""How a worker sends a batch: images through shared memory, everything else by value.

A batch has several small tensors per row. If each were shared, it would take a file descriptor in both processes, and a
few batches of 128 rows would reach the usual limit of 1024.
"""

import io
import pickle
from dataclasses import dataclass

import torch

from vladva_clip.workers.shared_memory import SHARED_BYTES


@dataclass(frozen=True)
class Packed:
    """An object as bytes, and the large tensors that the bytes refer to by index."""

    data: bytes
    tensors: list[torch.Tensor]

    def pin_memory(self) -> "Packed":
        """Return it with its large tensors in page-locked memory; called by the DataLoader."""
        return Packed(self.data, [tensor.pin_memory() for tensor in self.tensors])


def pack(item: object) -> Packed:
    """Prepare an object for sending."""
    buffer, tensors = io.BytesIO(), []
    _Packer(buffer, tensors).dump(item)
    return Packed(buffer.getvalue(), tensors)


def unpack(packed: Packed) -> object:
    """Return the object that was packed; its large tensors are not copied."""
    return _Unpacker(io.BytesIO(packed.data), packed.tensors).load()


class _Packer(pickle.Pickler):
    def __init__(self, buffer: io.BytesIO, tensors: list[torch.Tensor]) -> None:
        super().__init__(buffer, pickle.HIGHEST_PROTOCOL)
        self._tensors = tensors

    def persistent_id(self, item: object) -> int | None:
        if not isinstance(item, torch.Tensor) or item.nbytes < SHARED_BYTES:
            return None
        self._tensors.append(item)
        return len(self._tensors) - 1

    def reducer_override(self, item: object):
        if isinstance(item, torch.Tensor) and item.dtype != torch.bfloat16:  # which numpy lacks
            return torch.from_numpy, (item.numpy(),)
        return NotImplemented


class _Unpacker(pickle.Unpickler):
    def __init__(self, buffer: io.BytesIO, tensors: list[torch.Tensor]) -> None:
        super().__init__(buffer)
        self._tensors = tensors

    def persistent_load(self, number: int) -> torch.Tensor:
        return self._tensors[number]
