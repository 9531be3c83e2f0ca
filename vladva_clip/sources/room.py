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
    the Hub's. disk: free bytes there.
    """

    device: str
    memory: int | None
    cache: Path
    disk: int

    @classmethod
    def on(cls, device: str = "cpu", cache_dir: str | None = None) -> "Room":
        """Ask the device and the disk; "cpu" needs no torch."""
        cache = weights_here.cache(cache_dir)
        return cls(device, memory_of(device), cache, shutil.disk_usage(_existing(cache)).free)

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


def memory_of(device: str) -> int | None:
    """Return the free bytes of a CUDA device, or those available to programs on the machine; None if not known."""
    if not device.startswith("cuda"):
        return machine.available_memory()
    import torch  # late: a CPU's memory needs none

    return torch.cuda.mem_get_info(torch.device(device))[0]


def shown(path: Path) -> str:
    """Return a path with `~` for the user's home."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
