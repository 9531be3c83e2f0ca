"""One call of a model at a time, among the threads of one process."""

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator

from torch import nn


class ModelLock:
    """A reentrant lock, and the modes of modules that are in eval mode while it is held.

    A forked process gets a free lock, whoever held it at the fork, and modules in the modes that they had before. So
    does a copy, whether by `copy.deepcopy` or by pickle.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._modes: list[tuple[int, dict[nn.Module, bool]]] = []  # of each block of `evaluating`, with its thread
        _ALL.add(self)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the block; it is released also by a child that was forked within."""
        with self._lock:
            yield

    @contextlib.contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        """Hold the lock with the model in eval mode; then each module gets its own mode back."""
        with self.held():
            modes = {module: module.training for module in model.modules()}
            self._modes.append((threading.get_ident(), modes))
            try:
                model.eval()
                yield
            finally:
                _restore(modes)
                self._modes.pop()

    def renew(self) -> None:
        """Free the lock in a forked process, where the threads that may have held it don't exist."""
        self._lock = threading.RLock()
        others = [modes for thread, modes in self._modes if thread != threading.get_ident()]
        for modes in reversed(others):
            _restore(modes)
        self._modes = [entry for entry in self._modes if entry[0] == threading.get_ident()]

    def __deepcopy__(self, memo: dict) -> "ModelLock":
        return ModelLock()

    def __reduce__(self) -> tuple:
        return ModelLock, ()


def _restore(modes: dict[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode


def _renew_all() -> None:
    for lock in list(_ALL):
        lock.renew()


_ALL: "weakref.WeakSet[ModelLock]" = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # not on Windows, which doesn't fork
    os.register_at_fork(after_in_child=_renew_all)
