"""The settings that determine a run's captions and shards, and the manifest that keeps two runs from mixing."""

import contextlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vladva_clip.interface import precision_words
from vladva_clip.storage import file_locks, json_files, whole
from vladva_training.config import LONG_MAX_TOKENS, SHORT_MAX_TOKENS

MANIFEST = "manifest.json"
_HOLE = re.compile(r"\{\w*\}")  # {}, {0}, {caption}, but not JSON
KINDS = ("short", "long")
FILLS = {"short": ("short",), "long": ("long",), "both": KINDS}
IMAGE_FORMATS = {"jpg": "re-encoded as JPEG, quality 95, 4:4:4", "png": "re-encoded as PNG, lossless"}


@dataclass(frozen=True)
class CaptionSettings:
    """Everything that determines the output; devices and workers do not.

    Lengths are in tokens: `short_max_tokens` and `long_max_tokens` of the backbone's tokenizer, the `*_new_tokens` of
    the writing model's own. `records` is the number of records in the source; `batch_size` counts images. With a
    `short_count` above 1, short captions are drawn by nucleus sampling with `temperature` and `top_p`.

    Raises:
        ValueError: a value is out of range.
    """

    source: str
    records: int
    fill: str = "both"
    short_model: str = "Salesforce/blip2-opt-2.7b"
    long_model: str = "llava-hf/llava-1.5-7b-hf"
    short_prompt: str = ""
    long_prompt: str = "Describe this image in detail."
    short_new_tokens: int = 24
    long_new_tokens: int = 480
    num_beams: int = 1
    batch_size: int = 16
    samples_per_shard: int = 1000
    precision: str = "fp32"
    tokenizer: str = "vladva-7b"
    short_max_tokens: int = SHORT_MAX_TOKENS
    long_max_tokens: int = LONG_MAX_TOKENS
    image_format: str = "jpg"
    short_count: int = 1
    temperature: float = 1.0
    top_p: float = 0.9  # these two as LAVIS, BLIP-2's own code, has them

    def __post_init__(self) -> None:
        if self.fill not in FILLS:
            raise ValueError(f"--fill is {self.fill!r}, expected one of {', '.join(FILLS)}")
        if self.image_format not in IMAGE_FORMATS:
            raise ValueError(f"--image-format is {self.image_format!r}, expected one of {', '.join(IMAGE_FORMATS)}")
        precision_words.parse("--precision", self.precision)
        for kind in self.kinds:
            _check_prompt(f"--{kind}-prompt", getattr(self, f"{kind}_prompt"))
        if self.records < 1:
            raise ValueError(f"{self.source} has no records, expected at least one to caption")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected at least 1")
        self._check_sampling()

    def _check_sampling(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"--temperature is {self.temperature}, expected a number above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p is {self.top_p}, expected a number above 0, up to 1")
        if self.short_count == 1 and self._sampling() != _NOT_SAMPLED:
            raise ValueError("--temperature and --top-p apply to several short captions; set --short-count above 1")
        if self.short_count > 1 and "short" not in self.kinds:
            raise ValueError(f"--short-count is {self.short_count}, but --fill is {self.fill}; use short or both")
        if self.short_count > 1 and self.num_beams > 1 and self.kinds == ("short",):
            raise ValueError(f"--num-beams is {self.num_beams}, but several short captions are sampled; leave it out")

    def _sampling(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _NOT_SAMPLED}

    def stated(self) -> dict[str, Any]:
        """Return what the manifest states: all settings, those of sampling only where something is sampled."""
        return {name: value for name, value in asdict(self).items() if self.short_count > 1 or name not in _NOT_SAMPLED}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of caption to write, in this order."""
        return FILLS[self.fill]

    @property
    def shard_count(self) -> int:
        """The number of shards for the source's records."""
        return -(-self.records // self.samples_per_shard)

    def indexes(self, shard: int) -> range:
        """Return the source's indexes of a shard's records."""
        start = shard * self.samples_per_shard
        return range(start, min(start + self.samples_per_shard, self.records))


_COUNTS = ("short_new_tokens", "long_new_tokens", "num_beams", "batch_size", "samples_per_shard", "short_count")
_NOT_SAMPLED = {name: getattr(CaptionSettings, name) for name in ("short_count", "temperature", "top_p")}
"""The settings of a run that samples nothing. Its manifest is as before these settings existed."""


def _check_prompt(option: str, prompt: str) -> None:
    if hole := _HOLE.search(prompt):
        raise ValueError(
            f"{option} is {prompt!r:.200}, but nothing fills the placeholder {hole[0]}: a prompt is used literally, "
            "for every image; remove the placeholder"
        )


def require_resumable(output: Path, settings: CaptionSettings) -> None:
    """Refuse an output directory in which this run can neither start nor continue.

    Raises:
        ValueError: the directory holds other files, or a run with other settings; the error lists the differences.
    """
    path = output / MANIFEST
    if path.exists():
        _compare(output, _read_manifest(path), settings.stated())
    elif output.exists():
        others = (path for path in output.iterdir() if not whole.is_scratch(path))
        strangers = sorted(path.name for path in others if not path.name.endswith(".lock"))
        if strangers:
            raise ValueError(
                f"{output} holds {', '.join(strangers[:3])} but no {MANIFEST}; expected a new or empty directory, "
                "or one of an earlier run: choose another --output"
            )


def claim(output: Path, settings: CaptionSettings) -> None:
    """Write the manifest into a directory that has none; raises like `require_resumable`."""
    with one_at_a_time(output):
        require_resumable(output, settings)
        if not (output / MANIFEST).exists():
            write_text(output / MANIFEST, json.dumps(settings.stated(), indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def writing(output: Path, part: tuple[int, int]) -> Iterator[None]:
    """Lock a directory within a block. Commands for other parts, of the same number of parts, may run beside this one.

    Args:
        output: created if missing, and removed again if it stays empty.
        part: index of the part, and the number of parts.

    Raises:
        ValueError: another process is writing there.
    """
    made = [path for path in (output, *output.parents) if not path.exists()]
    output.mkdir(parents=True, exist_ok=True)
    number, count = part
    try:
        with (
            file_locks.held(output / file_locks.LOCK, shared=count > 1),
            file_locks.held(output / f".{number}-of-{count}.lock"),
        ):
            yield
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def one_at_a_time(output: Path) -> contextlib.AbstractContextManager[None]:
    """Lock the files that all parts share; waits for other parts."""
    return file_locks.held(output / ".shared.lock", wait=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = json_files.read(path, json_files.RECORDS)
    except ValueError as error:
        raise ValueError(f"{error}: the manifest is damaged; choose another --output") from error
    return _in_words(found) if isinstance(found, dict) else {}


def _in_words(found: dict[str, Any]) -> dict[str, Any]:
    """Translate a manifest of an earlier version, which named a dtype, to precision words."""
    if not isinstance(dtype := found.get("dtype"), str) or "precision" in found:
        return found
    rest = {key: value for key, value in found.items() if key != "dtype"}
    return {**rest, "precision": precision_words.of_dtype(dtype)}


def _compare(output: Path, found: dict, asked: dict) -> None:
    found, asked = ({**_NOT_SAMPLED, **settings} for settings in (found, asked))
    names = [*asked, *(name for name in found if name not in asked)]
    changed = [name for name in names if found.get(name) != asked.get(name)]
    if changed:
        what = "; ".join(f"{name} was {found.get(name)!r}, is {asked.get(name)!r}" for name in changed)
        raise ValueError(
            f"{output} was started with other settings ({what}): use the same ones to continue, or choose another "
            "--output"
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all. A lone surrogate becomes a JSON escape, so reading restores it."""
    whole.write(path, text.encode(errors="backslashreplace"))
