"""The records that are evaluated while training: a source's first usable ones, with their captions."""

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image

from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.examples import require_captions
from vladva_training.data.records import BadRecord, Source, one_record
from vladva_training.step.identity import picture_identity

IMAGES_AT_A_TIME = 32

Ids = tuple[int, ...]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Captions:
    """An image's identity and its captions: short ones, the first long one (empty if none), false ones."""

    picture: int
    short: tuple[Ids, ...]
    long: Ids
    foils: tuple[Ids, ...]


def usable(source: Source, splitter: CaptionSplitter, count: int) -> Iterator[tuple[Image.Image, Captions]]:
    """Yield the picture and the captions of the first `count` usable records; one warning reports the bad ones."""
    used, bad = 0, []
    for index in range(len(source)):
        if used == count:
            break
        try:
            with one_record(index):
                record = source[index]
                split = splitter.split(record.captions)
            require_captions(split, record.key)
        except BadRecord as error:
            bad.append(error)
            continue
        used += 1
        foils = splitter.split(record.hard_negatives).short
        long = split.long[0] if split.long else ()
        yield record.image, Captions(picture_identity(record.image), split.short, long, foils)
    if bad:
        _log.warning("%s: %d bad records skipped in the evaluation; the first: %s", source.name, len(bad), bad[0])


def prepared(
    source: Source | None, splitter: CaptionSplitter, preprocess: Callable, count: int
) -> Iterator[list[tuple[torch.Tensor, Captions]]]:
    """Yield preprocessed images with their captions, 32 at a time.

    Raises:
        ValueError: no usable record.
    """
    chunk = None
    for chunk in _chunks(usable(source, splitter, count)):
        yield [(preprocess(image), captions) for image, captions in chunk]
    if chunk is None:
        raise ValueError(no_record(source))


def by_picture(records: list[Captions]) -> tuple[list[int], list[Captions]]:
    """Merge records of the same picture: their first rows, and their captions without foils that are true."""
    rows: dict[int, list[int]] = {}
    for row, record in enumerate(records):
        rows.setdefault(record.picture, []).append(row)
    merged = []
    for picture, own in rows.items():
        short = tuple(ids for row in own for ids in records[row].short)
        foils = tuple(ids for row in own for ids in records[row].foils if ids not in short)
        merged.append(Captions(picture, short, (), foils))
    return [own[0] for own in rows.values()], merged


def no_record(source: Source) -> str:
    return f"{source.name}: none of its {len(source)} records is usable, expected at least one to evaluate on"


def _chunks(records: Iterator) -> Iterator[list]:
    while chunk := list(itertools.islice(records, IMAGES_AT_A_TIME)):
        yield chunk
