"""A picture of a data set: a file, or a byte range of an archive."""

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from vladva_clip.pictures.files import PictureError, read_file, read_picture

READERS = 8  # threads; hashlib and the disk run in parallel


class Openable(Protocol):
    """A picture of a task, in a file or drawn. Its text names it in messages."""

    @property
    def name(self) -> str:
        """Unique among the pictures of a run."""

    def open(self) -> Image.Image:
        """Return the RGB picture."""

    def sha256(self) -> str | None:
        """Return a hash of what it shows; None if it can't be read."""


@dataclass(frozen=True)
class Picture:
    """Where a picture is.

    name: unique below the data root. path: its file, or an archive that holds it uncompressed, as `size` bytes at
    `offset`.
    """

    name: str
    path: Path
    offset: int | None = None
    size: int | None = None

    def open(self) -> Image.Image:
        """Decode the picture, upright and RGB, as training does.

        Raises:
            ValueError: not a picture, truncated, or an unsupported format or mode.
        """
        try:
            return read_picture(self.content())
        except (OSError, PictureError) as error:
            raise ValueError(f"{self} is not a readable picture ({error}): get it again") from error

    def __str__(self) -> str:
        return f"{self.path} ({self.name})"

    def sha256(self) -> str | None:
        """Return the sha256 of its bytes; None if they can't be read: `open` raises why."""
        try:
            status = self.path.stat()
            return _sha256_of_state(self, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except (OSError, PictureError):
            return None

    def content(self) -> bytes:
        """Return its encoded bytes.

        Raises:
            OSError, PictureError: as `vladva_clip.pictures.files.read_file`.
        """
        if self.offset is None:
            return read_file(self.path)
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def require(pictures: Iterable[Picture], annotations: Path, how: str) -> None:
    """Refuse annotations that name pictures which are missing, folders or broken links.

    Each folder is listed once.

    Args:
        pictures: everything that the annotations name.
        annotations: the file that messages name.
        how: how to get the pictures.

    Raises:
        ValueError: gives the number of missing pictures and the first of them.
    """
    pictures, present = list(pictures), {}
    for folder in {picture.path.parent for picture in pictures}:
        present[folder] = {one.name for one in os.scandir(folder) if one.is_file()} if folder.is_dir() else set()
    missing = [picture for picture in pictures if picture.path.name not in present[picture.path.parent]]
    if missing:
        raise ValueError(
            f"{annotations} names {len(missing)} of {len(pictures)} pictures that are not there, the first is "
            f"{missing[0].path}: {how}"
        )


def stamps(pictures: Sequence[Openable]) -> list[tuple[str, str | None]]:
    """Return each picture's name and hash (`Openable.sha256`), so that a replaced picture is noticed."""
    with ThreadPoolExecutor(READERS) as pool:
        hashes = pool.map(lambda picture: picture.sha256(), pictures)
        return list(zip((picture.name for picture in pictures), hashes, strict=True))


@functools.lru_cache(maxsize=1 << 17)
def _sha256_of_state(picture: Picture, *state: int) -> str:
    """Cached by file state: a run asks both for its plan and for features, and suites share pictures."""
    return hashlib.sha256(picture.content()).hexdigest()
