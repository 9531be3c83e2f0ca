"""A job: what is to be embedded, by which model, and the folder with what is done. It continues where it stopped.

    job.json         what was asked for, by which model, and the name of the job's parts
    catalog.sqlite   the picture files in order
    NAME-C-S.safetensors   features of a collection's items from number S on

The folder lies beside the output, so that several machines that share it can share the work.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vladva_clip.bulk.parts import Part, Parts
from vladva_clip.storage import json_files, whole

FILE, ENDING = "job.json", ".parts"
SIZE = 1024  # items of a part


class Place(NamedTuple):
    """A part of a job: the number of its collection, and the range of items."""

    collection: int
    items: range


@dataclass(frozen=True)
class Job:
    """An opened job.

    folder: its place. name: of its parts. made_by: the model, as an index states it. lengths: of its collections.
    """

    folder: Path
    name: str
    made_by: dict[str, Any]
    lengths: tuple[int, ...]

    @property
    def parts(self) -> Parts:
        """The folder's part files."""
        return Parts(self.folder)

    def places(self) -> Iterator[Place]:
        """Yield all parts, in the order of their rows."""
        for number, length in enumerate(self.lengths):
            for start in range(0, length, SIZE):
                yield Place(number, range(start, min(start + SIZE, length)))

    def missing(self) -> list[Place]:
        """Return the parts that have no file."""
        return [place for place in self.places() if not self.parts.path(self.part_name(place)).exists()]

    def part_name(self, place: Place) -> str:
        """Return the name of a part's file."""
        return f"{self.name}-{place.collection}-{place.items.start:010}"

    def write(self, place: Place, part: Part) -> None:
        """Write a part; raises as `Parts.write`."""
        self.parts.write(self.part_name(place), part)

    def read(self, place: Place) -> Part | None:
        """Read a part; None if it is not there. Raises as `Parts.read`."""
        return self.parts.read(self.part_name(place), len(place.items))


def folder_of(output: Path) -> Path:
    """Return the folder of the job that writes an output."""
    return output.with_name(output.name + ENDING)


def asked(folder: Path) -> dict[str, Any] | None:
    """Return what the job of a folder was asked for; None if there is none.

    Raises:
        ValueError: its file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    return _read(path)["asked"]


def begin(folder: Path, request: Mapping[str, Any], made_by: Mapping[str, Any], lengths: list[int]) -> Job:
    """Make a job's file; what it lists must be in the folder already."""
    content = {"name": uuid.uuid4().hex[:16], "asked": request, "made_by": made_by, "lengths": lengths}
    whole.write(folder / FILE, json.dumps(content).encode())
    return resume(folder)


def resume(folder: Path) -> Job:
    """Open the job of a folder.

    Raises:
        ValueError: there is none, or its file is damaged.
    """
    found = _read(folder / FILE)
    return Job(folder, found["name"], found["made_by"], tuple(found["lengths"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json_files.parse(path.read_bytes(), json_files.RECORDS)
        return {key: found[key] for key in ("name", "asked", "made_by", "lengths")}
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be read as a job ({error}): remove {path.parent} to begin again") from error
