"""Finished shards on disk: a tar, and then its stats file, whose presence means that the shard is complete.

00000.tar         key.jpg (or .png) and key.json of each sample; the same samples give the same bytes
00000_stats.json  counts, and the problems of the shard's records
problems.jsonl    the problems of all finished shards, one per line; missing if there are none
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vladva_clip.storage import file_locks, json_files, whole
from vladva_clip.storage.config import read_json
from vladva_training.captioning.settings import write_text

PROBLEMS = "problems.jsonl"
STATS = {"samples", "tar_bytes", "filled", "problems"}


@dataclass(frozen=True)
class Problem:
    """A record that was left out, or a caption that could not be filled: where, a short reason, and the details."""

    index: int
    key: str
    reason: str
    detail: str


@dataclass
class Shard:
    """A shard that is being written: `add` its samples; `problems` and `filled` go into its stats file."""

    writer: Any  # webdataset.TarWriter
    samples: int = 0
    filled: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def add(self, key: str, image: bytes, suffix: str, description: dict[str, Any]) -> None:
        """Append one sample as `key.suffix` and `key.json`."""
        text = json.dumps(description, ensure_ascii=False)
        self.writer.write({"__key__": key, suffix: image, "json": text.encode(errors="backslashreplace")})
        self.samples += 1


@contextmanager
def new_shard(output: Path, name: str) -> Iterator[Shard]:
    """Write `name.tar` and `name_stats.json`; a block that ends early leaves neither.

    Raises:
        ValueError: another process writes this shard.
    """
    from webdataset import TarWriter

    # two commands may have overlapping parts
    with file_locks.held(output / f"{name}.tar.lock"), whole.scratch(output / f"{name}.tar") as scratch:
        # a fixed time: the same samples make the same file
        with TarWriter(str(scratch / whole.NEW), encoder=False, mtime=0) as writer:
            shard = Shard(writer)
            yield shard
        _finish(output, name, scratch / whole.NEW, shard)


def _finish(output: Path, name: str, new: Path, shard: Shard) -> None:
    tar = output / f"{name}.tar"
    size = new.stat().st_size if shard.samples else 0
    if shard.samples:
        whole.put(new, tar)
    else:
        tar.unlink(missing_ok=True)  # readers refuse an empty tar
    stats = {"samples": shard.samples, "tar_bytes": size, "filled": dict(sorted(shard.filled.items()))}
    stats["problems"] = [asdict(problem) for problem in shard.problems]
    write_text(_stats_path(output, name), json.dumps(stats, indent=1, ensure_ascii=False) + "\n")


def is_finished(output: Path, name: str) -> bool:
    """Whether a shard's stats file is there and readable, and its tar has the size that was written."""
    try:
        stats = read_stats(output, name)
    except (FileNotFoundError, ValueError):
        return False
    tar = output / f"{name}.tar"
    return set(stats) >= STATS and stats["tar_bytes"] == (tar.stat().st_size if tar.exists() else 0)


def read_stats(output: Path, name: str) -> dict[str, Any]:
    """Return the counts and problems of a finished shard."""
    return read_json(_stats_path(output, name), json_files.RECORDS)


def list_problems(output: Path, problems: list[dict[str, Any]]) -> None:
    """Write `problems.jsonl`, or remove it if there are none."""
    path = output / PROBLEMS
    if problems:
        write_text(path, "".join(json.dumps(problem, ensure_ascii=False) + "\n" for problem in problems))
    else:
        path.unlink(missing_ok=True)


def encode_image(image: Image.Image, suffix: str) -> bytes:
    """Encode an RGB image as a JPEG of quality 95 without chroma subsampling (`jpg`), or as a lossless PNG (`png`)."""
    stream = io.BytesIO()
    if suffix == "png":
        image.save(stream, "PNG")
    else:
        image.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def _stats_path(output: Path, name: str) -> Path:
    return output / f"{name}_stats.json"
