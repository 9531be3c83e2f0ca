"""The versions of what affects a run's result, kept in each checkpoint and compared on resume."""

import platform
from importlib.metadata import version

PACKAGES = ("vladva-clip", "torch", "transformers", "peft", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect a run's result."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def compare_versions(stored: dict[str, str]) -> list[str]:
    """Return one warning for each package whose version differs from the checkpoint's."""
    return [
        f"{name} {stored.get(name)} in the checkpoint, {now} now; the result is the same only up to rounding"
        for name, now in versions().items()
        if stored.get(name) != now
    ]
