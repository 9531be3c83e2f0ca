"""Slots of the order -> examples. A bad record is replaced by another one of the same source."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch.utils.data import Dataset

from vladva_clip.records.records import BadRecord, Source, one_record
from vladva_clip.scenes import stable_seed
from vladva_training.data.examples import Example, ExampleMaker
from vladva_training.data.order import Slot
from vladva_training.step.identity import UNKNOWN

MAX_ATTEMPTS = 100
"""Records tried for one row. If 4 of 5 records are bad, all of these are bad once in 5 billion rows."""


@dataclass(frozen=True)
class BadEntry:
    """A bad record as the report lists it."""

    source: str
    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Notes:
    """What happened while one row was read.

    Attributes:
        bad: the bad records.
        unused: captions that were not used, counted by reason.
        given_up: every attempt found a bad record.
        picture: the identity of the row's picture.
    """

    bad: tuple[BadEntry, ...] = ()
    unused: Counter = field(default_factory=Counter)
    given_up: bool = False
    picture: int = UNKNOWN


class Fetched(NamedTuple):
    """One row: its example (None if it was given up) and the notes."""

    example: Example | None
    notes: Notes


class ExampleDataset(Dataset):
    """A map-style dataset over slots.

    A bad record is replaced by another one of the same source, drawn by (seed, epoch, position, attempt). So the
    replacement is the same in every run, and the mixture of sources does not change.

    Args:
        sources: the sources, in the order's order.
        maker: makes examples of records.
    """

    def __init__(self, sources: Sequence[Source], maker: ExampleMaker) -> None:
        self.sources, self.maker = list(sources), maker

    def __getitem__(self, slot: Slot) -> Fetched:
        source, index, bad = self.sources[slot.source], slot.index, []
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                with one_record(index):
                    example, unused = self.maker.make(source[index], slot.epoch, slot.position)
                return Fetched(example, Notes(tuple(bad), unused, picture=example.picture))
            except BadRecord as error:
                bad.append(BadEntry(source.name, error.key, error.reason, error.detail))
            index = self._replacement(slot, attempt, len(source))
        return Fetched(None, Notes(tuple(bad), given_up=True))

    def _replacement(self, slot: Slot, attempt: int, length: int) -> int:
        return stable_seed("replacement", self.maker.seed, slot.epoch, slot.position, attempt) % length
