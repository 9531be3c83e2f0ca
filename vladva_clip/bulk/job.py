"""A job: what is to be embedded, by which model, and the folder with what is done. It continues where it stopped.

request.json, catalog.sqlite   what was asked for, and the picture files in order (`vladva_clip.bulk.request`)
job.json                       the model, the name of the job's parts, and how many items each collection has
NAME-C-S.safetensors           features of the items of collection C from number S on
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vladva_clip.bulk.parts import Part, Parts
from vladva_clip.index.embed import different, named
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

    def has(self, place: Place) -> bool:
        """Whether a part has a file."""
        return self.parts.path(self.part_name(place)).exists()

    def missing(self) -> list[Place]:
        """Return the parts that have no file."""
        return [place for place in self.places() if not self.has(place)]

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


def opened(folder: Path, lengths: Sequence[int], made_by: Mapping[str, Any]) -> Job:
    """Begin the job of a folder, or continue it.

    Args:
        folder: with a request.
        lengths: of its collections.
        made_by: the model, with its probes.

    Raises:
        ValueError: the job began with another model, the collections have changed since, or its file is damaged.
    """
    if not (folder / FILE).exists():
        content = {"name": uuid.uuid4().hex[:16], "made_by": made_by, "lengths": lengths}
        whole.write(folder / FILE, json.dumps(content).encode())
    found = resume(folder)
    if difference := different(found.made_by, made_by):
        raise ValueError(
            f"{folder} holds features of {named(found.made_by)}, which differ from those of {named(made_by)} "
            f"({difference}): finish with that model, or remove the folder"
        )
    if found.lengths != tuple(lengths):
        raise ValueError(f"{folder} is of other data ({found.lengths} items, now {lengths}): remove it to begin again")
    return found


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
        return {key: found[key] for key in ("name", "made_by", "lengths")}
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be read as a job ({error}): remove {path.parent} to begin again") from error
