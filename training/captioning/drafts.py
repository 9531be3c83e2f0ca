"""Records on their way into a shard, and how a model is asked for their captions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vladva_clip.interface.addresses import without_addresses
from vladva_clip.records.fields import texts
from vladva_clip.records.records import BadRecord, Record
from vladva_training.captioning.shards import Problem
from vladva_training.data.captions import CaptionSplitter

MAX_ASPECT_RATIO = 200  # as in Qwen2-VL's processor; CLIP's enlarges the whole picture before it crops


@dataclass
class Draft:
    """A record on its way into a shard. `authors` names the model of each caption, None for captions of the source."""

    index: int
    record: Record
    captions: list[str]
    authors: list[str | None]
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, index: int, record: Record) -> "Draft":
        """Return a draft with the record's own captions, without empty ones."""
        captions = [caption for caption in record.captions if caption.strip()]
        return cls(index, record, captions, [None] * len(captions))

    def add(self, caption: str, author: str) -> None:
        """Add a caption that a model wrote."""
        self.captions.append(caption)
        self.authors.append(author)

    def add_refusal(self, author: str, error: ValueError) -> None:
        """Note that a model refuses the image."""
        self.add_problem("image refused", f"{author}: {error}")

    def add_problem(self, reason: str, detail: str) -> None:
        """Note something that could not be done for this record."""
        self.problems.append(Problem(self.index, self.record.key, reason, without_addresses(detail)))


def without_thin(drafts: list[Draft]) -> list[Draft]:
    """Return the drafts without images that a processor would enlarge to gigabytes; these get a problem."""
    thin = [max(draft.record.image.size) > MAX_ASPECT_RATIO * min(draft.record.image.size) for draft in drafts]
    for draft in (draft for draft, is_thin in zip(drafts, thin, strict=True) if is_thin):
        width, height = draft.record.image.size
        limit = f"expected no side longer than {MAX_ASPECT_RATIO} times the other"
        draft.add_problem("image too thin", f"{width} x {height}, {limit}")
    return [draft for draft, is_thin in zip(drafts, thin, strict=True) if not is_thin]


def ask(name: str, write: Callable[[list[Any]], list[Any]], items: list[Any]) -> list[Any]:
    """Return what `write` gives for each item, or the model's ValueError for an item whose image it refuses.

    Args:
        name: the model's name.
        write: takes items, one per image, and returns as many captions or lists of captions.
        items: a batch of them.

    Raises:
        ValueError: the model refused every image of a batch.
    """
    if not items:
        return []
    try:
        return write(items)
    except ValueError as error:
        if len(items) == 1:
            return [error]
    written = [one for item in items for one in ask(name, write, [item])]
    if all(isinstance(one, ValueError) for one in written):
        raise ValueError(f"{name} refused every image of a batch: {written[0]}")
    return written


def fault(text: str, kind: str, author: str, splitter: CaptionSplitter) -> tuple[str, str] | None:
    """Return why a text is not a usable caption of a kind, as a reason and details; None if it is."""
    if not text:
        return "empty caption written", f"{author} wrote no {kind} caption"
    if not getattr(splitter.split((text,)), kind):
        return "caption of another length written", f"{author} wrote {text!r:.200}, expected a {kind} one"
    if not _is_read_back(text):
        return "unusable caption written", f"{author} wrote {text!r:.200}, which training refuses"
    return None


def _is_read_back(text: str) -> bool:
    """Whether training reads a text as it is, not as a missing value, a number or a list (see `fields.texts`)."""
    try:
        return texts({"captions": [text]}, ("captions",), "") == (text,)
    except BadRecord:
        return False
