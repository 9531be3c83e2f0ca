"""Which device a word means, and whether it is here: found out before a model is looked for or downloaded."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds, which a command's --help should not
    import torch

AUTO = "auto"
PREFERRED = ("cuda", "mps", "cpu")  # what "auto" takes the first of


def resolve(device: "str | int | torch.device | None") -> "torch.device":
    """Return the device that is meant, if it is here.

    Args:
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:N", "mps", another accelerator that torch
            finds, or a `torch.device`; an int is an accelerator's index and None the CPU, as to torch and open_clip.

    Raises:
        ValueError: an unknown word, or a device that isn't here; those that are, are named.
    """
    import torch

    if device is None or str(device) in ("cpu", "cpu:0"):  # without a look at the GPUs, which may start their driver
        return torch.device("cpu")
    return torch.device(choose(device, available()))


def available() -> dict[str, int]:
    """Return what torch finds here: a kind of device -> how many of it; accelerators first, the CPU last."""
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
    """Return torch's name of a device, given what `available` found.

    Raises:
        ValueError: as `resolve`.
    """
    if device == AUTO:
        return next(kind for kind in PREFERRED if kind in here)
    name = f"{_accelerator(here)}:{device}" if type(device) is int else str(device)
    parts = re.fullmatch(r"([a-z]+)(?::([0-9]+))?", name)  # torch itself takes cuda:256 for cuda:0
    if not parts or int(parts[2] or 0) >= here.get(parts[1], 0):
        raise ValueError(f'device {device!r:.60} is not here; there are {_named(here)}, and "auto" picks one of them')
    return name


def add_option(parser: Any, default: str | None = "cpu", what: str = "%(default)s by default") -> None:
    """Give an argparse parser the option `--device`; the command checks its value by `resolve`, before all else."""
    words = f"auto, cpu, cuda, cuda:N or mps; {what}"
    parser.add_argument("--device", default=default, metavar="DEVICE", help=words)


def _accelerator(here: dict[str, int]) -> str:
    return next((kind for kind in here if kind != "cpu"), "")


def _named(here: dict[str, int]) -> str:
    kinds = sorted(here, key=lambda kind: kind != "cpu")
    return ", ".join(
        f"{kind}:{i}" if kind == "cuda" or here[kind] > 1 else kind for kind in kinds for i in range(here[kind])
    )
