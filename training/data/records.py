"""What a source yields, and what it says when one record cannot be used."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from vladva_clip.interface.addresses import without_addresses


@dataclass(frozen=True)
class Record:
    """One raw record.

    Attributes:
        key: unique within its source and the same in every run.
        image: RGB, decoded. Records with the same pixels are of the same picture.
        captions: short and long ones together; which is which is for the backbone's tokenizer to say.
        hard_negatives: captions that are false of the image.
    """

    key: str
    image: Image.Image
    captions: tuple[str, ...]
    hard_negatives: tuple[str, ...] = ()


def printable(text: str) -> str:
    r"""Return a text that every file and terminal for UTF-8 takes: lone surrogates, which stand for bytes that were not
    UTF-8 or for half a sign, become escapes such as `\udce9`."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


class BadRecord(Exception):  # noqa: N818 - it names a record, and is no fault of the program
    """One record cannot be used; the others of its source can.

    Args:
        reason: a short name to count by: "corrupt image", "image format", "image too large", "missing image", "missing
            caption", "empty caption", "captions too long", "not utf-8", "not json", "malformed row", "wrong type",
            "duplicate key", "several images", "nested too deeply", "out of memory".
        key: the record's key.
        detail: what was found; what UTF-8 can not hold in it (a path's stray bytes) is kept as an escape, and an
            object's address in memory is left out.
    """

    def __init__(self, reason: str, key: str, detail: str = "") -> None:
        key, detail = (without_addresses(printable(text)) for text in (key, detail))
        super().__init__(reason, key, detail)  # all three, so that it can be pickled
        self.reason, self.key, self.detail = reason, key, detail

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@contextlib.contextmanager
def one_record(index: int) -> Iterator[None]:
    """Read one record of a source within this block: one that is too deep or too large for Python is a bad record.

    Raises:
        BadRecord: "nested too deeply" or "out of memory", and what the block raises.
    """
    try:
        yield
    except RecursionError as error:
        raise BadRecord("nested too deeply", f"record {index}", str(error)) from error
    except MemoryError as error:
        raise BadRecord("out of memory", f"record {index}", str(error)) from error


class Source(Protocol):
    """A map-style collection of records: any record at any time, the same each time, in any process.

    A source is picklable and keeps no open file, so that the loader's workers can be forked or spawned. A source
    whose records belong together in runs of n states `group_size = n`.
    """

    name: str
    """The spec that it was opened from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Read one record.

        Raises:
            BadRecord: this record, and no other, cannot be used.
        """
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """Read the captions of one record without decoding its image.

        Raises:
            BadRecord: the captions cannot be read.
        """
        ...
