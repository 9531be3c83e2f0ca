"""Gauges for benchmarks: seconds, peak memory, speed of a matrix product, and the names of hardware and versions."""

import gc
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch

from vladva_clip.interface import devices

MATMUL_SIZE = {"cuda": 8192}
STATUS = Path("/proc/self/status")


def use(name: str) -> torch.device:
    """Return the device that `--device` means, and have the gauges measure it: a GPU becomes torch's current one.

    Raises:
        ValueError: the device is not available.
    """
    device = devices.resolve(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def synchronize() -> None:
    """Wait until the accelerator, if there is one, has finished its queue."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes, the device's queue included."""
    return elapsed(call)[0]


def elapsed(call: Callable[[], object]) -> tuple[float, float]:
    """Return a call's wall-clock seconds and processor seconds (all threads), the device's queue included.

    Other processes on the machine disturb the second figure less.
    """
    synchronize()
    start = time.perf_counter(), time.process_time()
    call()
    synchronize()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak memory of a call, in bytes beyond what was in use before.

    On CUDA, memory from the allocator; on a CPU, growth of the process's resident set (Linux only; start a fresh
    process for it).

    Raises:
        ValueError: a CPU under another system, or another accelerator.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - start
    if device.type != "cpu" or not STATUS.exists():
        raise ValueError(
            f"peak memory on {device} can't be read, only that of CUDA or of a CPU under Linux; run with "
            "--memory-repeats 0"
        )
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    start = _status("VmRSS")
    call()
    return _status("VmHWM") - start


def _status(key: str) -> int:
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(key + ":")]
    return int(line.split()[1]) * 1024


def matmul_peak(device: torch.device, dtype: str) -> float:
    """Return the floating-point operations per second of a large matrix product, the best of ten."""
    size = MATMUL_SIZE.get(device.type, 1024)
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(10))


def spread(values: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def hardware(device: torch.device) -> str:
    """Return the name of the hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = f"{_cpu_name()}, {torch.get_num_threads()} threads"
    return cpu if device.type == "cpu" else f"{device.type}, {cpu}"


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of distributions."""
    return {name: metadata.version(name) for name in packages}
