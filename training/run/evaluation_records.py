"""The records that are evaluated while training: a source's first usable ones, with their captions."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from PIL import Image

from vladva_clip.records.records import BadRecord, Record, Source, one_record
from vladva_training.data.captions import CaptionSplitter, SplitCaptions
from vladva_training.data.examples import require_captions
from vladva_training.step.identity import picture_identity

IMAGES_AT_A_TIME = 32

Ids = tuple[int, ...]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Captions:
    """An image's identity and its captions: short ones, the first long one (empty if none), false ones.

    facts: what the record knows to be true of the image; claims: what its short and false captions claim, where it
    knows that.
    """

    picture: int
    short: tuple[Ids, ...]
    long: Ids
    foils: tuple[Ids, ...]
    facts: frozenset[str] = frozenset()
    claims: Mapping[Ids, frozenset[str]] = field(default_factory=dict)


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
        yield record.image, _captions(record, split, splitter)
    if bad:
        _log.warning("%s: %d bad records skipped in the evaluation; the first: %s", source.name, len(bad), bad[0])


def _captions(record: Record, split: SplitCaptions, splitter: CaptionSplitter) -> Captions:
    foils, long = splitter.split(record.hard_negatives), split.long[0] if split.long else ()
    stated = {splitter.cleaned(text): claims for text, claims in record.claims.items()}
    texts = [pair for one in (foils, split) for pair in zip(one.short, one.short_texts, strict=True)]
    claims = {ids: stated[text] for ids, text in texts if text in stated}
    return Captions(picture_identity(record.image), split.short, long, foils.short, record.facts, claims)


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
    merged = [_merged([records[row] for row in own]) for own in rows.values()]
    return [own[0] for own in rows.values()], merged


def _merged(records: list[Captions]) -> Captions:
    """One picture's records as one, without foils that are true of it by any of them."""
    short = tuple(ids for one in records for ids in one.short)
    facts = frozenset().union(*(one.facts for one in records))
    claims = {ids: claimed for one in records for ids, claimed in one.claims.items()}
    true = {*short, *(ids for ids, claimed in claims.items() if claimed and claimed <= facts)}
    foils = tuple(ids for one in records for ids in one.foils if ids not in true)
    return Captions(records[0].picture, short, (), foils, facts, claims)


def no_record(source: Source) -> str:
    return f"{source.name}: none of its {len(source)} records is usable, expected at least one to evaluate on"


def _chunks(records: Iterator) -> Iterator[list]:
    while chunk := list(itertools.islice(records, IMAGES_AT_A_TIME)):
        yield chunk
