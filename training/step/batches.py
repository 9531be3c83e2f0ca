"""A batch of pairs as the step takes it, images and captions' ids, and its micro-batches."""

import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from vladva_training.step.identity import UNKNOWN, identity

Captions = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Batch:
    """B images with their records' captions; an absent caption is None.

    Attributes:
        keys: the records' keys, for messages.
        images: `(B, 3, H, W)` float32.
        short, other_short: ids of a short caption and of a second one, 1-D int64, without the end of text.
        long: ids of a long caption, 1-D int64, with the end of text.
        hard_negatives: ids of each image's false captions.
        short_texts: the short captions' texts.
        further_texts: for each image, the texts of its second short caption (None if absent) and of its hard
            negatives.
        pictures: the pictures' identities (`vladva_training.step.identity`), unknown by default.
        facts: identities of what is true of each picture, 1-D int64, none by default.
        claims: for each image, the identities of the facts that its short, second and false captions claim.
    """

    keys: tuple[str, ...]
    images: torch.Tensor
    short: Captions
    other_short: Captions
    long: Captions
    hard_negatives: tuple[tuple[torch.Tensor, ...], ...]
    short_texts: tuple[str | None, ...]
    further_texts: tuple[tuple[str | None, ...], ...] = ()
    pictures: tuple[int, ...] = ()
    facts: tuple[torch.Tensor, ...] = ()
    claims: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "further_texts", self.further_texts or ((),) * len(self))
        object.__setattr__(self, "pictures", self.pictures or (UNKNOWN,) * len(self))
        object.__setattr__(self, "facts", self.facts or (torch.zeros(0, dtype=torch.int64),) * len(self))
        object.__setattr__(self, "claims", self.claims or ((),) * len(self))

    @classmethod
    def collate(cls, examples: Sequence, eos_id: int) -> "Batch":
        """Make a batch of examples (`vladva_training.data.examples.Example`), and end the long captions with eos_id."""
        eos = torch.tensor([eos_id])
        return cls(
            keys=tuple(example.key for example in examples),
            images=torch.stack([example.pixels for example in examples]),
            short=tuple(example.short for example in examples),
            other_short=tuple(example.other_short for example in examples),
            long=tuple(None if example.long is None else torch.cat([example.long, eos]) for example in examples),
            hard_negatives=tuple(tuple(example.hard_negatives) for example in examples),
            short_texts=tuple(example.short_text for example in examples),
            further_texts=tuple(tuple(example.further_texts) for example in examples),
            pictures=tuple(example.picture for example in examples),
            facts=tuple(example.facts for example in examples),
            claims=tuple(tuple(example.claims) for example in examples),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def by_length(self) -> "Batch":
        """Return the images sorted by the length of their long captions, longest first.

        That minimizes padding in micro-batches, and runs the one that needs the most memory first.
        """
        lengths = [0 if caption is None else len(caption) for caption in self.long]
        order = sorted(range(len(self)), key=lambda row: -lengths[row])
        columns = [getattr(self, name) for name in self.__dataclass_fields__]
        return Batch(
            *(rows[order] if isinstance(rows, torch.Tensor) else tuple(rows[row] for row in order) for rows in columns)
        )

    def micro_batches(self, size: int | None) -> list["Batch"]:
        """Cut the batch into runs of at most `size` images, in order; None leaves it whole."""
        size = size or len(self)
        return [self._cut(slice(start, start + size)) for start in range(0, len(self), size)]

    def _cut(self, rows: slice) -> "Batch":
        return Batch(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def labeled_tokens(self) -> int:
        """Number of tokens that next-token prediction learns from."""
        return sum(len(caption) for caption in self.long if caption is not None)

    def caption_hashes(self, num_hard_negatives: int, near: bool) -> torch.Tensor:
        """Return `(B, 2 + K, 2)` int64: hashes of the text and the ids of the short, second and false captions.

        Two captions are the same if either hash is equal. Absent captions are `UNKNOWN`.

        Args:
            num_hard_negatives: K.
            near: ignore case, punctuation and articles in texts.
        """
        width = 2 + num_hard_negatives
        texts = [[text, *more] for text, more in zip(self.short_texts, self.further_texts, strict=True)]
        captions = zip(self.short, self.other_short, self.hard_negatives, strict=True)
        ids = [[short, other, *more] for short, other, more in captions]
        by_text = _hashes(texts, lambda text: _normal_form(text, near).encode(), width)
        return torch.stack([by_text, _hashes(ids, lambda row: row.numpy().tobytes(), width)], dim=-1)


_ARTICLES = {"a", "an", "the"}


def _normal_form(text: str, near: bool) -> str:
    if near:
        words = "".join(letter for letter in text.casefold() if not _is_punctuation(letter)).split()
        text = " ".join(word for word in words if word not in _ARTICLES)
    return text.strip()


def _is_punctuation(letter: str) -> bool:
    """Return whether it is ASCII punctuation or a symbol, or punctuation of any script, such as a curly quote."""
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


def _hashes(rows: Sequence[Sequence], as_bytes: Callable[..., bytes], width: int) -> torch.Tensor:
    """Hash rows of up to `width` items: `(B, width)` int64; absent items are `UNKNOWN`."""
    found = [[UNKNOWN if item is None else identity(as_bytes(item)) for item in row] for row in rows]
    return torch.tensor([(row + [UNKNOWN] * width)[:width] for row in found], dtype=torch.int64)
