"""One call of a model at a time among the threads of a process."""

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator

from torch import nn


class ModelLock:
    """A reentrant lock that also puts a model in eval mode and restores each module's mode.

    A forked process starts with a free lock, even if a thread held it at the fork, and with the modules' original
    modes. A copy, by `copy.deepcopy` or pickle, gets a new lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._modes: list[tuple[int, dict[nn.Module, bool]]] = []  # of each open `evaluating` block, with its thread
        _ALL.add(self)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the block. A child forked inside the block may leave it too."""
        with self._lock:
            yield

    @contextlib.contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        """Hold the lock with the model in eval mode; afterwards each module gets its own mode back."""
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
        """Free the lock in a forked process, where other threads that held it no longer exist."""
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
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew_all)
