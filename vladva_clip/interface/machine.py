"""How much memory this process may still use, on this machine and in the container or job that it runs in."""

import os
from collections.abc import Iterator
from pathlib import Path

MEMINFO, OWN_GROUP, GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the bytes that can be used without swapping or being killed; None on systems without Linux's files."""
    found = [size for size in (_of_machine(), *_of_groups()) if size is not None]
    return min(found, default=None)


def local_processes() -> int:
    """Return how many of a run's processes share this machine's memory, as torchrun states it."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def in_words(size: float) -> str:
    """Return a number of bytes as MiB or GiB."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def _of_machine() -> int | None:
    kilobytes = _counters(MEMINFO).get("MemAvailable:")
    return None if kilobytes is None else kilobytes * 1024


def _of_groups() -> Iterator[int]:
    """Bytes left below the limit of each control group of this process; containers and batch jobs set such limits."""
    for line in _read(OWN_GROUP).splitlines():
        _, kinds, place = line.split(":", 2)
        if kinds == "":  # version 2
            names, root = ("memory.max", "memory.current", "inactive_file"), GROUPS
        elif "memory" in kinds.split(","):
            names, root = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), GROUPS / "memory"
        else:
            continue
        group = root / place.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (limit := _read(folder / names[0]).strip()).isdigit():
                # cached files count as used, but are evicted when needed
                unused = _counters(folder / "memory.stat").get(names[2], 0)
                yield max(0, int(limit) - int(_read(folder / names[1]) or 0) + unused)


def _counters(path: Path) -> dict[str, int]:
    rows = [line.split() for line in _read(path).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
