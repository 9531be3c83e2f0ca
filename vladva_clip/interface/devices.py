"""Resolve the name of a device and check that it exists, before a model is located or downloaded."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing torch takes seconds, too long for a command's --help
    import torch

AUTO = "auto"
PREFERRED = ("cuda", "mps", "cpu")  # "auto" takes the first one available


def resolve(device: "str | int | torch.device | None") -> "torch.device":
    """Return the device for a name, if this machine has it.

    Args:
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:N", "mps", another accelerator that torch
            finds, or a `torch.device`. An int is an accelerator's index and None means the CPU, as in torch and
            open_clip.

    Raises:
        ValueError: an unknown name, or a device that this machine lacks; the message lists the devices it has.
    """
    import torch

    if device is None or str(device) in ("cpu", "cpu:0"):  # don't look at the GPUs, which may start their driver
        return torch.device("cpu")
    return torch.device(choose(device, available()))


def available() -> dict[str, int]:
    """Return the devices that torch finds: kind -> count, accelerators first, the CPU last."""
    import torch

    found = {}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.device_count()
    if torch.backends.mps.is_available():
        found["mps"] = 1
    if torch.accelerator.is_available():  # Intel's, Huawei's, ...
        found.setdefault(torch.accelerator.current_accelerator().type, torch.accelerator.device_count())
    return {**found, "cpu": 1}


def choose(device: Any, here: dict[str, int]) -> str:
    """Return torch's name for a device, given the result of `available`.

    Raises:
        ValueError: as `resolve`.
    """
    if device == AUTO:
        return next(kind for kind in PREFERRED if kind in here)
    name = f"{_accelerator(here)}:{device}" if type(device) is int else str(device)
    parts = re.fullmatch(r"([a-z]+)(?::([0-9]+))?", name)  # torch itself reads cuda:256 as cuda:0
    if not parts or int(parts[2] or 0) >= here.get(parts[1], 0):
        raise ValueError(f'device {device!r:.60} is not available; expected "auto" or one of {_named(here)}')
    return name


def add_option(parser: Any, default: str | None = "cpu", what: str = "%(default)s by default") -> None:
    """Add the option `--device` to an argparse parser; the command passes its value to `resolve` before all else."""
    words = f"auto, cpu, cuda, cuda:N or mps; {what}"
    parser.add_argument("--device", default=default, metavar="DEVICE", help=words)


def _accelerator(here: dict[str, int]) -> str:
    return next((kind for kind in here if kind != "cpu"), "")


def _named(here: dict[str, int]) -> str:
    kinds = sorted(here, key=lambda kind: kind != "cpu")
    return ", ".join(
        f"{kind}:{i}" if kind == "cuda" or here[kind] > 1 else kind for kind in kinds for i in range(here[kind])
    )
