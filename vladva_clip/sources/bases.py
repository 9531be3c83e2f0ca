"""Facts about the built-in models' bases (shapes, license, dtype), which are data: `assets/bases.json`."""

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

from vladva_clip.interface import extras
from vladva_clip.storage import json_files

FILE = "assets/bases.json"


class NotInstalledError(ValueError, RuntimeError):
    """Files of the package are missing: a ValueError to us, a RuntimeError to code written for open_clip."""


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base before any of its files is here.

    license: by the Hub's name for it, as the base's page there states it; None if it states none. dtype: that its
    features are computed in. image_size: pixels, where the base leaves the choice open. num_parameters: of all its
    parts. config: the part of the base's published config.json that decides its shapes; None for a packaged base, whose
    own file is at hand.
    """

    license: str | None
    dtype: str
    image_size: int | None = None
    num_parameters: int | None = None
    config: dict[str, Any] | None = None


def find(base_id: str) -> BaseFacts | None:
    """Return the facts about a base, by Hub id or, for a packaged one, by name; None for any other base.

    Raises:
        NotInstalledError: the package's own file is missing.
    """
    return _read().get(base_id)


def missing(path: object) -> NotInstalledError:
    """Return the error for a missing file or folder of the package."""
    return NotInstalledError(
        f"{path} is missing: this installation of vladva_clip is incomplete. Install it again (pip install "
        f"--force-reinstall --no-deps {extras.ourselves()}); if it is imported from a zip, unpack the zip, since "
        "models are files"
    )


@functools.cache
def _read() -> dict[str, BaseFacts]:
    file = resources.files("vladva_clip").joinpath(FILE)  # not a Path: the package may be imported from a zip
    if not file.is_file():
        raise missing(file)
    return {base_id: BaseFacts(**facts) for base_id, facts in json_files.parse(file.read_bytes()).items()}
