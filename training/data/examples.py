"""Record -> example: captions chosen and tokenized, the image as the model's input."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from vladva_clip.records.records import BadRecord, Record
from vladva_clip.scenes import stable_seed
from vladva_clip.workers.prefetch import seeded
from vladva_training.data.captions import CaptionSplitter, SplitCaptions
from vladva_training.data.known_facts import NO_FACTS, KnownFacts
from vladva_training.data.negatives import usable_negatives
from vladva_training.step.identity import UNKNOWN, picture_identity


@dataclass(frozen=True)
class Example:
    """One row of a batch; an absent caption is None.

    Attributes:
        key: the record's key.
        pixels: `(3, H, W)` float32.
        short, other_short, long: 1-D int64 ids of the chosen captions, without end of text. `other_short` is a second,
            different short caption, present only on request.
        hard_negatives: 1-D int64 ids of false captions.
        short_text: the chosen short caption.
        further_texts: `other_short`, None when absent, and the hard negatives.
        picture: the identity of the picture, before any transform (`vladva_training.step.identity`).
        facts: 1-D int64, the identities of what is true of the picture; empty unless requested.
        claims: the identities of the facts that `short`, `other_short` and each hard negative claim; empty unless
            requested.
    """

    key: str
    pixels: torch.Tensor
    short: torch.Tensor | None
    other_short: torch.Tensor | None
    long: torch.Tensor | None
    hard_negatives: tuple[torch.Tensor, ...]
    short_text: str | None
    further_texts: tuple[str | None, ...] = ()
    picture: int = UNKNOWN
    facts: torch.Tensor = NO_FACTS
    claims: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class ExampleMaker:
    """Makes the example of a record at a position in the order.

    The choice among several captions and the randomness of the transform are pure functions of (seed, epoch, position):
    they change with the epoch, but not with the number of workers or processes.

    Attributes:
        splitter: separates short captions from long ones.
        preprocess: PIL image -> `(3, H, W)` float32.
        seed: of the choices.
        num_hard_negatives: most false captions per example.
        with_other_short: choose a second short caption as well; with facts, the nearest in its claims.
        with_facts: pass on what the record knows to be true, and leave out hard negatives that are true by it.
    """

    splitter: CaptionSplitter
    preprocess: Callable[[Image.Image], torch.Tensor]
    seed: int = 0
    num_hard_negatives: int = 0
    with_other_short: bool = False
    with_facts: bool = False

    def make(self, record: Record, epoch: int, position: int) -> tuple[Example, Counter]:
        """Return the example, and the record's unusable captions counted by reason.

        Raises:
            BadRecord: none of the record's captions can be used; more facts or claims than a batch has room for.
        """
        split = self.splitter.split(record.captions)
        require_captions(split, record.key)
        seed = stable_seed("example", self.seed, epoch, position)
        rng = random.Random(seed)
        known = KnownFacts.of(record, self.splitter, split.short_texts) if self.with_facts else KnownFacts()
        short, other = self._choose_short(split, known, rng)
        long = _tensor(_sample(split.long, 1, rng)[0]) if split.long else None
        negatives, false_texts, unused = self._hard_negatives(record.hard_negatives, split, known, rng)
        picture = picture_identity(record.image)
        with seeded(seed):
            pixels = self.preprocess(record.image)
        unused.update({"caption too long": split.too_long, "caption empty": split.empty})
        chosen = (short, other)
        ids = [None if number is None else _tensor(split.short[number]) for number in chosen]
        text, other_text = (None if number is None else split.short_texts[number] for number in chosen)
        further = (other_text, *false_texts)
        knowledge = known.identities([text, *further]) if self.with_facts else ()
        return Example(record.key, pixels, *ids, long, negatives, text, further, picture, *knowledge), +unused

    def _choose_short(
        self, split: SplitCaptions, known: KnownFacts, rng: random.Random
    ) -> tuple[int | None, int | None]:
        """Return the indices of the chosen short caption and of a different one, with facts the nearest in its claims.

        Two captions of a picture may have nothing in common; then there is no second one.
        """
        if not split.short:
            return None, None
        (first,) = _sample(range(len(split.short)), 1, rng)
        others = [number for number, ids in enumerate(split.short) if ids != split.short[first]]
        if self.with_other_short:
            near = known.nearest(split.short_texts[first], [split.short_texts[number] for number in others])
            others = [number for number in others if split.short_texts[number] in near]
        if not self.with_other_short or not others:
            return first, None
        return first, _sample(others, 1, rng)[0]

    def _hard_negatives(
        self, texts: Sequence[str], own: SplitCaptions, known: KnownFacts, rng: random.Random
    ) -> tuple[tuple[torch.Tensor, ...], tuple[str, ...], Counter]:
        """Return ids and texts of the chosen hard negatives, and the unusable ones counted by reason."""
        if not self.num_hard_negatives:
            return (), (), Counter()
        usable, unused = usable_negatives(texts, own, self.splitter, known.true_texts())
        chosen = _sample(usable, self.num_hard_negatives, rng)
        return tuple(_tensor(ids) for ids, _ in chosen), tuple(text for _, text in chosen), unused


def require_captions(split: SplitCaptions, key: str) -> None:
    """Refuse a record without usable captions.

    Raises:
        BadRecord: with the reason.
    """
    if split.short or split.long:
        return
    if split.too_long:
        raise BadRecord("captions too long", key, f"{split.too_long} captions")
    raise BadRecord("empty caption" if split.empty else "missing caption", key)


def _tensor(ids: Sequence[int]) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.long)


def _sample(items: Sequence, count: int, rng: random.Random) -> list:
    """Draw up to `count` different items, using only `Random.random`, whose sequence Python guarantees."""
    items = list(items)
    return [items.pop(int(rng.random() * len(items))) for _ in range(min(count, len(items)))]
