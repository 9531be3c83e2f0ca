"""Several different short captions of an image, drawn until there are enough.

What an image gets depends on its key, its pixels and the settings alone: each draw has a seed made of the key and the
draw's number, and an image goes through its own draws in order, whichever images share a batch with it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from vladva_clip.records.records import printable
from vladva_training.captioning.captioners import Captioner
from vladva_training.captioning.drafts import Draft, ask, fault, without_thin
from vladva_training.captioning.settings import CaptionSettings
from vladva_training.data.captions import CaptionSplitter

KIND = "short"
ROUNDS = 5
"""How often the captions that an image lacks are drawn: a plain image has few different ones."""


@dataclass
class Collection:
    """The different short captions of one image so far.

    Attributes:
        draft: the image's record, which the captions are added to.
        lacking: number of captions still to be written.
        known: its short captions in plain form, those of the source and those written.
        drawn: number of captions drawn, whether kept or not.
        refused: reason -> number of captions that were drawn and not kept.
    """

    draft: Draft
    lacking: int
    known: set[str]
    drawn: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, draft: Draft, count: int, splitter: CaptionSplitter) -> "Collection":
        """Return a draft's collection; the source's own short captions count."""
        known = {plain(text) for text in splitter.split(draft.record.captions).short_texts}
        return cls(draft, max(0, count - len(known)), known)

    def next_seeds(self) -> list[str]:
        """Return the seeds of the draws that may fill it."""
        key = printable(self.draft.record.key)
        return [f"{key} {number}" for number in range(self.drawn, self.drawn + self.lacking)]

    def take(self, drawn: list[str], author: str, splitter: CaptionSplitter) -> int:
        """Keep the usable texts among `drawn` that are new; returns their number."""
        before, self.drawn = self.lacking, self.drawn + len(drawn)
        for text in drawn:
            if found := fault(text, KIND, author, splitter):
                self.refused[found[0]] += 1
            elif plain(text) in self.known:
                self.refused["caption written twice"] += 1
            else:
                self.known.add(plain(text))
                self.draft.add(text, author)
                self.lacking -= 1
        return before - self.lacking


def write_several(
    drafts: list[Draft], captioner: Captioner, settings: CaptionSettings, splitter: CaptionSplitter
) -> int:
    """Draw short captions until each image has `settings.short_count` different ones, its source's included.

    An image that still lacks some after `ROUNDS` keeps those it has, and gets a problem.

    Returns:
        The number of captions written.
    """
    collections = [Collection.of(draft, settings.short_count, splitter) for draft in drafts]
    kept, open_ones = 0, _without_thin([one for one in collections if one.lacking])
    for _ in range(ROUNDS):
        written, open_ones = _draw(open_ones, captioner, settings, splitter)
        kept += written
    for one in open_ones:
        one.draft.add_problem("too few different captions written", _shortage(one, captioner.name, settings))
    return kept


def plain(text: str) -> str:
    """Return a caption in lower case, with single spaces and without a final period, to find repeated ones."""
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()


def _without_thin(collections: list[Collection]) -> list[Collection]:
    usable = {draft.index for draft in without_thin([one.draft for one in collections])}
    return [one for one in collections if one.draft.index in usable]


def _draw(
    collections: list[Collection], captioner: Captioner, settings: CaptionSettings, splitter: CaptionSplitter
) -> tuple[int, list[Collection]]:
    """Draw once what the collections lack; returns the number of captions kept, and those that still lack some."""

    def write(group: list[Collection]) -> list[list[str]]:
        images = [one.draft.record.image for one in group]
        return captioner.sample(images, [one.next_seeds() for one in group], settings.temperature, settings.top_p)

    kept, lacking = 0, []
    for group in _of_equal_need(collections):
        for one, drawn in zip(group, ask(captioner.name, write, group), strict=True):
            if isinstance(drawn, ValueError):
                one.draft.add_refusal(captioner.name, drawn)
                continue
            kept += one.take(drawn, captioner.name, splitter)
            lacking += [one] if one.lacking else []
    return kept, lacking


def _of_equal_need(collections: list[Collection]) -> Iterator[list[Collection]]:
    """Yield groups that lack the same number of captions, which a model writes at once."""
    for need in sorted({one.lacking for one in collections}, reverse=True):
        yield [one for one in collections if one.lacking == need]


def _shortage(one: Collection, author: str, settings: CaptionSettings) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(one.refused.items()))
    return f"{len(one.known)} of {settings.short_count} after {one.drawn} draws of {author}: {reasons}"
