"""WebDataset tar shards as a map-style source: indexed once, then one seek per sample."""

import os
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from PIL import Image

from vladva_clip.records.fields import (
    CAPTION_FIELDS,
    CONVERSATIONS,
    HARD_NEGATIVES,
    decode_text,
    row_captions,
    texts,
)
from vladva_clip.records.images import decode_image
from vladva_clip.records.json_rows import json_object
from vladva_clip.records.paths import expand_files
from vladva_clip.records.records import BadRecord, Record, printable
from vladva_clip.records.tar_index import Member, TarIndex, open_indices, repeated

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
CAPTION_EXTENSIONS = {"txt": "caption"} | {
    f"{name}{ending}": name for name in CAPTION_FIELDS if not name.endswith("s") for ending in ("", ".txt")
}
"""Extension -> the field for the file's text."""

_GAP = 65536
"""Most bytes between the members of a sample for which a single read is cheaper than several."""


def open_webdataset(pattern: str, spec: str) -> "WebDatasetSource":
    """Open shards by a path, a path with braces or a directory, and index those without an index.

    Raises:
        ValueError: missing shards, no sample with an image in any of them.
    """
    return WebDatasetSource(expand_files(pattern, ".tar", spec), spec)


class WebDatasetSource:
    """The samples of all shards, one after another.

    A sample's files: one image (`jpg`, `jpeg`, `png`, `webp`), and captions in `txt` (`caption`, `short_caption`,
    `long_caption`: one caption each) or in `json` (the fields of `fields.py`).
    """

    def __init__(self, shards: list[Path], name: str) -> None:
        self.name, self.shards = name, shards
        self.indices = open_indices(shards)
        self._ends = list(accumulate(len(index) for index in self.indices))
        self._folder = Path(os.path.commonpath([shard.absolute().parent for shard in shards]))
        if not any(_has_image(index) for index in self.indices):
            raise ValueError(
                f"{name}: no image in {len(shards)} shards with {len(self)} samples; expected members named "
                f"KEY.{{{','.join(IMAGE_EXTENSIONS)}}} beside KEY.txt or KEY.json"
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        files, members, key = self._files(index, _is_used)
        row = _row(files, key)
        captions = row_captions(row, key)
        return Record(key, _image(files, members, key), captions, texts(row, (HARD_NEGATIVES,), key))

    def key(self, index: int) -> str:
        """Return the key of a sample's record: the shard's path below the shards' folder, and the sample's own key."""
        return self._find(index)[2]

    def picture(self, index: int) -> Image.Image:
        """Read only the picture of a sample."""
        return _image(*self._files(index, _is_image))

    def captions(self, index: int) -> tuple[str, ...]:
        """Read only the captions of a sample."""
        files, _, key = self._files(index, lambda extension: _is_used(extension) and not _is_image(extension))
        return row_captions(_row(files, key), key)

    def _files(self, index: int, wanted: Callable[[str], bool]) -> tuple[dict[str, bytes], list[Member], str]:
        """Extension -> bytes of the wanted members of a sample, all its members, and the record's key."""
        shard, sample, key = self._find(index)
        members = _unambiguous(self.indices[shard].members(sample), key)
        return _read(self.shards[shard], [m for m in members if wanted(m.extension)], key), members, key

    def _find(self, index: int) -> tuple[int, int, str]:
        """Shard, index of the sample in it, key of the record."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard = bisect_right(self._ends, index)
        sample = index - (self._ends[shard] - len(self.indices[shard]))
        path = self.shards[shard].absolute().relative_to(self._folder)
        return shard, sample, printable(f"{path}/{self.indices[shard].key(sample)}")


def _has_image(index: TarIndex) -> bool:
    return any(extension in IMAGE_EXTENSIONS for extension in index.extensions)


def _unambiguous(members: list[Member], key: str) -> list[Member]:
    """Return a sample's members if it has at most one picture and each extension once.

    Raises:
        BadRecord: "duplicate key", "several images".
    """
    if twice := repeated(members):
        what = f"several files .{', .'.join(twice)}: more than one sample has this key"
        raise BadRecord("duplicate key", key, f"{what}; give each sample its own key")
    images = [member.extension for member in members if member.extension in IMAGE_EXTENSIONS]
    if len(images) > 1:
        what = f"found .{' and .'.join(images)}, expected one"
        raise BadRecord("several images", key, f"{what}; rename the others, for example to KEY.mask.{images[-1]}")
    return members


def _image(files: dict[str, bytes], members: list[Member], key: str) -> Image.Image:
    image = next((files[extension] for extension in IMAGE_EXTENSIONS if extension in files), None)
    if image is None:
        raise BadRecord("missing image", key, f"files {', '.join(m.extension for m in members)}")
    return decode_image(image, key)


def _is_image(extension: str) -> bool:
    return extension in IMAGE_EXTENSIONS


def _is_used(extension: str) -> bool:
    return _is_image(extension) or extension in CAPTION_EXTENSIONS or extension == "json"


def _read(shard: Path, members: list[Member], key: str) -> dict[str, bytes]:
    """Extension -> bytes, with a single seek if the members are adjacent, as in shards that WebDataset writes."""
    if not members:
        return {}
    start, end = min(m.offset for m in members), max(m.offset + m.size for m in members)
    with shard.open("rb") as file:
        end = min(end, os.fstat(file.fileno()).st_size)  # a damaged header may claim any size
        if end - start <= sum(m.size for m in members) + _GAP:
            file.seek(start)
            data = file.read(max(0, end - start))
            files = {m.extension: data[m.offset - start : m.offset - start + m.size] for m in members}
        else:
            files = {m.extension: _read_at(file, m) for m in members}
    for member in members:
        if len(files[member.extension]) < member.size:
            raise BadRecord("truncated shard", key, f"{shard.name} ends inside .{member.extension}")
    return files


def _read_at(file, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(min(member.size, os.fstat(file.fileno()).st_size))


def _row(files: dict[str, bytes], key: str) -> dict[str, object]:
    """The fields of the caption files, followed by those of the json file."""
    row: dict[str, object] = {}
    for extension, data in files.items():
        if extension in CAPTION_EXTENSIONS:
            row.setdefault(CAPTION_EXTENSIONS[extension], []).append(decode_text(data, key))
    for name, value in json_object(files.get("json", b"{}"), key).items():
        if name in CAPTION_FIELDS:
            row[name] = [*row.get(name, []), *(value if isinstance(value, list) else [value])]
        elif name in (CONVERSATIONS, HARD_NEGATIVES):
            row[name] = value
    return row
