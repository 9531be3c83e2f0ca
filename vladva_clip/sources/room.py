"""The room on this machine for a model: memory of the device, and disk at the Hub's cache."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from vladva_clip.interface import devices, machine
from vladva_clip.sources import weights_here


@dataclass(frozen=True)
class Room:
    """What is free here.

    device: torch's name. memory: free bytes of the device, or available ones of the machine; None if not known. cache:
    the Hub's. disk: free bytes there; None if not known.
    """

    device: str
    memory: int | None
    cache: Path
    disk: int | None

    @classmethod
    def on(cls, device: str = "cpu", cache_dir: str | None = None) -> "Room":
        """Ask the device and the disk; "cpu" needs no torch."""
        cache = weights_here.cache(cache_dir)
        return cls(device, memory_of(device), cache, _free(cache))

    @classmethod
    def here(cls, device: str = devices.AUTO) -> "Room":
        """Ask the device that a command with this `--device` would use.

        Raises:
            ValueError: as `devices.resolve`.
        """
        return cls.on(str(devices.resolve(device)))

    @property
    def kind(self) -> str:
        """Its kind as `fit` knows it: "cpu" or "gpu"."""
        return "cpu" if self.device.startswith("cpu") else "gpu"

    def holds(self, memory: int) -> bool:
        """Whether so many bytes of memory fit; unknown memory is assumed to be enough."""
        return self.memory is None or memory <= self.memory

    def stores(self, size: int) -> bool:
        """Whether so many bytes fit on the disk; an unknown disk is assumed to be large enough."""
        return self.disk is None or size <= self.disk


def memory_of(device: str) -> int | None:
    """Return the free bytes of a CUDA device, or those available to programs on the machine; None if not known."""
    if not device.startswith("cuda"):
        return machine.available_memory()
    import torch  # late: a CPU's memory needs none

    try:
        return torch.cuda.mem_get_info(torch.device(device))[0]
    except RuntimeError:  # no context can be made, as on a GPU that is full: the load itself reports it
        return None


def shown(path: Path) -> str:
    """Return a path with `~` for the user's home."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)


def _free(path: Path) -> int | None:
    """Free bytes where a path is or would be made; None if it can't be entered, or its file system states no size."""
    try:
        usage = shutil.disk_usage(next(folder for folder in (path, *path.absolute().parents) if folder.exists()))
    except OSError:
        return None
    return usage.free if usage.total else None
