"""What a word of the command line stands for, as a numbered collection: shards and tables beside picture files."""

import glob
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vladva_clip.bulk.decoding import Pictures
from vladva_clip.bulk.parts import Row
from vladva_clip.interface import extras
from vladva_clip.interface.addresses import without_addresses
from vladva_clip.interface.arguments import user_path
from vladva_clip.pictures.failures import Failure
from vladva_clip.records.records import BadRecord, one_record
from vladva_clip.storage import plain_files

TABLES = (".tar", ".parquet", ".jsonl", ".csv", ".tsv")


class RecordPictures:
    """The pictures of a source's records, named by the word and the record's key."""

    def __init__(self, source, word: str) -> None:
        self.source, self.word = source, word

    def __len__(self) -> int:
        return len(self.source)

    @property
    def damaged(self) -> list[Failure]:
        """The shards that are not whole, so that nobody knows what they had behind."""
        shards = zip(getattr(self.source, "shards", ()), getattr(self.source, "indices", ()), strict=True)
        return [
            Failure(str(shard), f"ends early ({index.ends_early}): what follows is lost")
            for shard, index in shards
            if index.ends_early
        ]

    def row(self, number: int) -> Row:
        """Return the record's name."""
        return Row(f"{self.word}#{self.source.key(number)}")

    def open(self, number: int) -> Image.Image:
        """Return the record's RGB picture; its captions are not read.

        Raises:
            ValueError: the picture can't be used, with the reason.
        """
        try:
            with one_record(number):
                return self.source.picture(number)
        except BadRecord as error:
            raise ValueError(error.reason + (f" ({error.detail})" if error.detail else "")) from error


class Unopened:
    """A table that can't be opened, as a collection: no pictures and one failure."""

    def __init__(self, word: str, reason: str) -> None:
        self.damaged = [Failure(word, reason)]

    def __len__(self) -> int:
        return 0


class Selected:
    """Some of the pictures of a collection, by their numbers."""

    def __init__(self, pictures: Pictures, numbers: np.ndarray) -> None:
        self.pictures, self.numbers = pictures, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def damaged(self) -> list[Failure]:
        """The collection's."""
        return getattr(self.pictures, "damaged", [])

    def row(self, number: int) -> Row:
        """Return the picture's row."""
        return self.pictures.row(int(self.numbers[number]))

    def open(self, number: int) -> Image.Image:
        """Return the picture."""
        return self.pictures.open(int(self.numbers[number]))


class Texts:
    """Texts as a collection."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def row(self, number: int) -> Row:
        """Return the text."""
        return Row(self.texts[number], "text")


def is_table(word: str) -> bool:
    """Whether a word names shards or a table, by its suffix."""
    return Path(word).suffix.lower() in TABLES


def expanded(words: Iterable[str]) -> list[str]:
    """Return words with each glob of shards or tables replaced by the files that match it, sorted."""
    globs = {word: sorted(glob.glob(os.path.expanduser(word))) for word in words if _is_glob(word)}
    return [name for word in words for name in globs.get(word) or [word]]


def _is_glob(word: str) -> bool:
    return is_table(word) and glob.has_magic(word) and not os.path.exists(word)


def open_or_miss(word: str, directory: str = "") -> RecordPictures | Unopened:
    """Open a table, as `open_table`; one that can't be opened is a failure among others.

    Raises:
        ExtraError: a package is missing that reads it.
    """
    try:
        return open_table(word, directory)
    except extras.ExtraError:
        raise
    except (ValueError, OSError) as error:
        reason = plain_files.said(error).removeprefix(f"{word}: ")
        return Unopened(word, " ".join(without_addresses(reason).split()))


def open_table(word: str, directory: str = "") -> RecordPictures:
    """Open the shards or the table that a word names; braces name several files.

    Args:
        word: as the user wrote it.
        directory: where it starts, if it is relative.

    Raises:
        ExtraError: a package is missing that reads it.
        ValueError: missing files, no pictures in them, or another format.
    """
    place = str(Path(directory, user_path(word)))
    return RecordPictures(_openers()[Path(word).suffix.lower()](place, word), word)


def _openers() -> dict:
    # imported only when needed: they import pyarrow and datasets
    from vladva_clip.records.parquet import open_parquet
    from vladva_clip.records.tables import open_csv, open_jsonl
    from vladva_clip.records.webdataset import open_webdataset

    csv, parquet = partial(open_csv, captioned=False), partial(open_parquet, captioned=False)
    return {".tar": open_webdataset, ".parquet": parquet, ".csv": csv, ".tsv": csv, ".jsonl": open_jsonl}
