"""Measures what tensors hold: bytes of storages alive, and their peak, while a block of code runs."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class LiveBytes(TorchDispatchMode):
    """Within `with LiveBytes() as memory:`, counts the storages that operations make until they are freed.

    `memory.peak` is the largest number of bytes alive at once; what existed before the block is not counted, nor
    what is on the meta device, where a storage takes no memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = set()
        tree_map_only(torch.Tensor, lambda t: given.add(t.untyped_storage()._cdata), (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, lambda t: self._count(t.untyped_storage(), given), result)
        return result

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in given or key in self._known or storage.device.type == "meta":
            return
        self._known[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self._known.pop(key)
