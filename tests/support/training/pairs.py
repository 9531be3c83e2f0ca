"""Sources of pairs for tests: encoded pictures, tars, and a source from a list."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.support.samples import picture
from vladva_clip.records.records import BadRecord, Record

SHORT = "a red circle"
LONG = " ".join(f"there is a {colour} circle on the left of the dog," for colour in ("red", "green", "blue") * 4)


def encoded(seed: int = 0, form: str = "JPEG") -> bytes:
    """An encoded picture; the same seed gives the same bytes."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, format=form)
    return buffer.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def write_tar(path: Path, files: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    """Write a tar with files in the given order; in a list a name may stand twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def to_pixels(image: Image.Image) -> torch.Tensor:
    """A cheap transform to `(3, 8, 8)`."""
    small = np.asarray(image.resize((8, 8)), dtype=np.float32)
    return torch.from_numpy(small).permute(2, 0, 1) / 255


def noisy_pixels(image: Image.Image) -> torch.Tensor:
    """A transform with randomness of its own."""
    return to_pixels(image) + torch.rand(3, 8, 8)


def as_examples(examples: list) -> list:
    """The simplest of batches, without `Batch`."""
    return examples


@dataclass
class ListSource:
    """A source of `count` records whose bad ones are named by index."""

    name: str = "list"
    count: int = 20
    bad: dict[int, str] | None = None
    texts: tuple[str, ...] = (SHORT, LONG)
    group_size: int = 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        captions = self.captions(index)
        if index in (self.bad or {}):
            raise BadRecord(self.bad[index], f"{self.name}{index}", "made so")
        return Record(f"{self.name}{index}", picture(index), captions)

    def captions(self, index: int) -> tuple[str, ...]:
        return self.texts
