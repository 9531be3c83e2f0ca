"""A picture of a data set: a file, or a stretch of an archive."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vladva_clip.pictures import PictureError, read_file, read_picture


@dataclass(frozen=True)
class Picture:
    """Where a picture is.

    name: unique below the data root. path: its file, or the archive that holds it uncompressed as `size` bytes from
    `offset` on.
    """

    name: str
    path: Path
    offset: int | None = None
    size: int | None = None

    def open(self) -> Image.Image:
        """Decode the picture: upright and RGB, as training reads it.

        Raises:
            ValueError: a file that is no picture, is cut, or is of a format or mode that isn't read.
        """
        try:
            return read_picture(read_file(self.path) if self.offset is None else self._bytes())
        except (OSError, PictureError) as error:
            raise ValueError(f"{self.path} ({self.name}) is no readable picture ({error}): get it again") from error

    def stamp(self) -> tuple[str, int, int]:
        """Return its name, its bytes, and when its file was last changed in nanoseconds."""
        status = self.path.stat()
        return self.name, status.st_size if self.size is None else self.size, status.st_mtime_ns

    def _bytes(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def require(pictures: Iterable[Picture], annotations: Path, how: str) -> None:
    """Refuse annotations that name pictures which are not there, or are folders or links to nothing.

    Each folder is listed once.

    Args:
        pictures: all that the annotations name.
        annotations: the file to blame.
        how: where the pictures come from.

    Raises:
        ValueError: with the number of missing pictures and the first of them.
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
