"""What a source yields, and the error for a record that can't be used."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from vladva_clip.interface.addresses import without_addresses


@dataclass(frozen=True)
class Record:
    """One raw record.

    Attributes:
        key: unique within its source and the same in every run.
        image: RGB, decoded. Records with the same pixels have the same picture.
        captions: short and long ones together; the backbone's tokenizer decides which is which.
        hard_negatives: captions that are false of the image.
        facts: every atomic fact that is true of the image, in any notation; empty if the source knows none.
        claims: a caption or hard negative -> the facts that it claims. A caption is true of an image if its claims are
            a nonempty subset of the image's facts; one without claims is true only of the images that have it.
    """

    key: str
    image: Image.Image
    captions: tuple[str, ...]
    hard_negatives: Sequence[str] = ()
    facts: frozenset[str] = frozenset()
    claims: Mapping[str, frozenset[str]] = field(default_factory=dict)


def printable(text: str) -> str:
    r"""Return a text that can be encoded as UTF-8: lone surrogates, which stand for bytes that were not UTF-8 or for
    half a character, become escapes such as `\udce9`."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


class BadRecord(Exception):  # noqa: N818 - it describes a record, not a fault of the program
    """One record cannot be used; the others of its source can.

    Args:
        reason: a short name to count by: "corrupt image", "image format", "image too large", "missing image", "missing
            caption", "empty caption", "captions too long", "not utf-8", "not json", "malformed row", "wrong type",
            "duplicate key", "several images", "nested too deeply", "out of memory", "too many facts", "too many
            claims".
        key: the record's key.
        detail: what was found. Text that UTF-8 can't hold (a path's stray bytes) is escaped, and an object's address in
            memory is left out.
    """

    def __init__(self, reason: str, key: str, detail: str = "") -> None:
        key, detail = (without_addresses(printable(text)) for text in (key, detail))
        super().__init__(reason, key, detail)  # all three, so that it can be pickled
        self.reason, self.key, self.detail = reason, key, detail

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@contextlib.contextmanager
def one_record(index: int) -> Iterator[None]:
    """Read one record of a source within this block, where data that overwhelms Python makes it a bad record.

    Raises:
        BadRecord: "nested too deeply" or "out of memory", or as raised within the block.
    """
    try:
        yield
    except RecursionError as error:
        raise BadRecord("nested too deeply", f"record {index}", str(error)) from error
    except MemoryError as error:
        raise BadRecord("out of memory", f"record {index}", str(error)) from error


class Source(Protocol):
    """A map-style collection of records: any record can be read at any time, with the same result in any process.

    A source is picklable and keeps no file open, so that the loader's workers can be forked or spawned. A source whose
    records belong together in runs of n has `group_size = n`.
    """

    name: str
    """The spec it was opened from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Read one record.

        Raises:
            BadRecord: this one record can't be used.
        """
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """Read the captions of one record without decoding its image.

        Raises:
            BadRecord: the captions can't be read.
        """
        ...
