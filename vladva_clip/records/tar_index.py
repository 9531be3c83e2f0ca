"""An index of the samples in a tar shard, built once and cached beside the shard."""

import hashlib
import logging
import os
import random
import re
import tarfile
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vladva_clip.storage import sealed, whole

FORMAT = 2  # format 1 merged samples with the same key
SAMPLE = 1 << 16  # bytes at either end of a shard that identify it, with its size and time
Archive = list[tuple[str, int, int]]  # name, offset and size of each file
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A file of a sample: its extension in lower case ("jpg", "json"), and where its bytes are in the tar."""

    extension: str
    offset: int
    size: int


@dataclass(frozen=True)
class TarIndex:
    """The samples of one shard, stored as columns because a data set has millions of them.

    Attributes:
        keys: `(N,)` bytes, UTF-8.
        starts: `(N + 1,)` int64: members `starts[i]` to `starts[i + 1]` are sample i's.
        extensions: the different extensions.
        extension: `(M,)` uint16, each member's place in `extensions`.
        offset, size: `(M,)` int64, in bytes.
        ends_early: why the shard's end is missing or unreadable; "" if it isn't.
    """

    keys: np.ndarray
    starts: np.ndarray
    extensions: tuple[str, ...]
    extension: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    ends_early: str = ""

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, sample: int) -> str:
        """Return a sample's key: its members' path up to the first dot of the file name, with stray bytes escaped."""
        return self.keys[sample].decode(errors="backslashreplace")

    def members(self, sample: int) -> list[Member]:
        """Return a sample's files, in the tar's order."""
        rows = range(self.starts[sample], self.starts[sample + 1])
        return [
            Member(self.extensions[self.extension[row]], int(self.offset[row]), int(self.size[row])) for row in rows
        ]


def open_indices(tars: list[Path]) -> list[TarIndex]:
    """Return the indices of shards, in their order, as `open_index` does."""
    order = list(range(len(tars)))
    random.Random(uuid.uuid4().int).shuffle(order)  # so processes that start together share the work
    found = {number: open_index(tars[number]) for number in order}
    return [found[number] for number in range(len(tars))]


def open_index(tar: Path) -> TarIndex:
    """Return a shard's index: the cached one if the shard has not changed, otherwise a new one.

    A shard is unchanged if its name, size, time and the bytes at both of its ends are the same. The index is sealed
    (`sealed`). It is stored beside the shard as `<tar>.index.json`, or in `$XDG_CACHE_HOME/vladva-clip/tar-index` if
    that folder is not writable.

    Raises:
        ValueError: not an uncompressed tar.
    """
    stamp = _stamp(tar)
    places = [tar.with_name(f"{tar.name}.index.json"), _cache_place(tar)]
    for place in places:
        columns = _read_cached(place, tar.name, stamp)
        if columns is not None:
            return _to_index(columns, tar)
    logger.info("indexing the samples of %s", tar)
    columns = _build(tar)
    _write_first(places, sealed.plain(tar.name, {**stamp, **columns}))
    return _to_index(columns, tar)


def _build(tar: Path) -> dict:
    """Group the members by key; those of a sample need not be adjacent."""
    archives, ends_early = _list_files(tar)
    samples = _samples(_stretches(archives))
    members = [member for own in samples.values() for member in own]
    extensions = sorted({member.extension for member in members})
    numbers = {extension: number for number, extension in enumerate(extensions)}
    return {
        "ends_early": ends_early,
        "keys": list(samples),
        "counts": [len(own) for own in samples.values()],
        "extensions": extensions,
        "extension": [numbers[member.extension] for member in members],
        "offset": [member.offset for member in members],
        "length": [member.size for member in members],
    }


def _stretches(archives: list[Archive]) -> dict[str, list[list[Member]]]:
    """Key -> its members, with adjacent ones in one list."""
    found: dict[str, list[list[Member]]] = {}
    for archive in archives:
        last = None
        for name, offset, size in archive:
            parts = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)  # WebDataset's rule: up to the name's first dot
            if not parts:
                continue
            own = found.setdefault(parts[1], [])
            if parts[1] != last:
                own.append([])
            own[-1].append(Member(parts[2].lower(), offset, size))
            last = parts[1]
    return found


def _samples(stretches: dict[str, list[list[Member]]]) -> dict[str, list[Member]]:
    """Key -> the members of its sample.

    If all stretches of a key have the same extensions, they are several samples, as in concatenated tars; the later
    ones are named `KEY#2`, `KEY#3`. Otherwise its members are one sample. If an extension appears twice in it, the
    sample is a bad record, since it is unclear which files belong together.
    """
    found: dict[str, list[Member]] = {}
    for key, own in stretches.items():
        kinds = {tuple(sorted(member.extension for member in stretch)) for stretch in own}
        if len(kinds) == 1 and not repeated(own[0]):
            names = _further_names(key, stretches)
            found |= {key: own[0]} | {name: stretch for name, stretch in zip(names, own[1:], strict=False)}
        else:
            found[key] = [member for stretch in own for member in stretch]
    return found


def _further_names(key: str, taken: Collection[str]) -> Iterator[str]:
    """`KEY#2`, `KEY#3` and so on, skipping names that are keys themselves."""
    return (name for number in count(2) if (name := f"{key}#{number}") not in taken)


def repeated(members: list[Member]) -> list[str]:
    """Return the extensions that several members have."""
    return [name for name, times in Counter(member.extension for member in members).items() if times > 1]


def _list_files(tar: Path) -> tuple[list[Archive], str]:
    """The files of each archive in a tar (`cat` joins several), and how the tar ends early, "" if it is complete."""
    archives, start, ends_early = [], 0, ""
    with tar.open("rb") as file:
        while start is not None and not ends_early:
            archive, end, ends_early = _list_archive(file, start, tar)
            archives.append(archive)
            start = _next_start(file, end)
    return archives, ends_early


def _list_archive(file: BinaryIO, start: int, tar: Path) -> tuple[Archive, int, str]:
    """Name, offset and size of the files of the archive at `start`; where it ends; how it ends early, or ""."""
    files, end = [], start
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # otherwise they accumulate
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if member.isreg():
                    files.append((member.name, member.offset_data, member.size))
    except tarfile.TarError as error:
        if not end:
            raise ValueError(
                f"{tar} is not an uncompressed tar ({error}); expected a shard: decompress it, or create it again"
            ) from error
        return files, end, str(error)
    return files, end, "" if _ends_at(file, end) else f"no header and no end at byte {end}"


def _ends_at(file: BinaryIO, offset: int) -> bool:
    """Whether a block of zeros, which ends a tar, is there: tarfile treats a broken header as the end."""
    file.seek(offset)
    return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _next_start(file: BinaryIO, offset: int) -> int | None:
    """Where data follows the zeros after an archive; None if the zeros continue to the end of the file."""
    file.seek(offset)
    while data := file.read(2**20):
        if rest := data.lstrip(b"\0"):
            place = offset + len(data) - len(rest)
            return place - place % tarfile.BLOCKSIZE
        offset += len(data)
    return None


def _to_index(columns: dict, tar: Path) -> TarIndex:
    if columns["ends_early"]:
        logger.warning("%s ends early (%s): samples after that point are lost", tar, columns["ends_early"])
    keys = [key.encode("utf-8", errors="surrogateescape") for key in columns["keys"]]
    return TarIndex(
        keys=np.array(keys, dtype=np.bytes_),
        starts=np.concatenate([[0], np.cumsum(columns["counts"], dtype=np.int64)]),
        extensions=tuple(columns["extensions"]),
        extension=np.array(columns["extension"], dtype=np.uint16),
        offset=np.array(columns["offset"], dtype=np.int64),
        size=np.array(columns["length"], dtype=np.int64),
        ends_early=columns["ends_early"] or "",
    )


def _stamp(tar: Path) -> dict:
    size, time = tar.stat().st_size, tar.stat().st_mtime_ns
    with tar.open("rb") as file:
        ends = file.read(SAMPLE)
        file.seek(max(0, size - SAMPLE))
        ends += file.read(SAMPLE)
    return {"format": FORMAT, "size": size, "mtime_ns": time, "ends": hashlib.sha256(ends).hexdigest()}


def _read_cached(place: Path, name: str, stamp: dict) -> dict | None:
    try:
        columns = sealed.read_plain(place, name, stamp["size"] + (1 << 20))
    except sealed.DamagedError as error:  # or another program's file
        logger.info("the index %s is built again: %s", place, error)
        return None
    fresh = columns is not None and all(columns.get(key) == value for key, value in stamp.items())
    return columns if fresh else None


def _write_first(places: list[Path], data: bytes) -> None:
    """Write to the first place that can be written."""
    for place in places:
        try:
            return whole.write(place, data)
        except OSError as error:
            logger.info("can't write a shard's index at %s: %s", place, error)
    logger.warning("a shard's index can be stored neither at %s nor at %s; it is built each time", *places)


def _cache_place(tar: Path) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(tar.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    return root / "vladva-clip" / "tar-index" / f"{name}.index.json"
