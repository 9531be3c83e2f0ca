"""A batch of pairs as the step takes it: images, and captions as ids. Cut into micro-batches without loss."""

import hashlib
import string
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Captions = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Batch:
    """B images with what their records hold; an absent caption is None.

    Attributes:
        keys: the records' keys, for messages.
        images: `(B, 3, H, W)` float32.
        short, other_short: ids of a short caption and of a second one, 1-D int64, without end of text.
        long: ids of a long caption, 1-D int64, with the end of text.
        hard_negatives: ids of false captions of each image.
        short_texts: the short captions' texts.
    """

    keys: tuple[str, ...]
    images: torch.Tensor
    short: Captions
    other_short: Captions
    long: Captions
    hard_negatives: tuple[tuple[torch.Tensor, ...], ...]
    short_texts: tuple[str | None, ...]

    @classmethod
    def collate(cls, examples: Sequence, eos_id: int) -> "Batch":
        """Put examples (`vladva_training.data.examples.Example`) together and end the long captions."""
        eos = torch.tensor([eos_id])
        return cls(
            keys=tuple(example.key for example in examples),
            images=torch.stack([example.pixels for example in examples]),
            short=tuple(example.short for example in examples),
            other_short=tuple(example.other_short for example in examples),
            long=tuple(None if example.long is None else torch.cat([example.long, eos]) for example in examples),
            hard_negatives=tuple(tuple(example.hard_negatives) for example in examples),
            short_texts=tuple(example.short_text for example in examples),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def by_length(self) -> "Batch":
        """Return the images in the order of their long captions' lengths, the longest first.

        Micro-batches of it are padded the least, and the one that needs the most memory comes first.
        """
        lengths = [0 if caption is None else len(caption) for caption in self.long]
        order = sorted(range(len(self)), key=lambda row: -lengths[row])
        columns = [getattr(self, name) for name in self.__dataclass_fields__]
        return Batch(
            *(rows[order] if isinstance(rows, torch.Tensor) else tuple(rows[row] for row in order) for rows in columns)
        )

    def micro_batches(self, size: int | None) -> list["Batch"]:
        """Cut into runs of at most `size` images, in order; one run for None."""
        size = size or len(self)
        return [self._cut(slice(start, start + size)) for start in range(0, len(self), size)]

    def _cut(self, rows: slice) -> "Batch":
        return Batch(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def labelled_tokens(self) -> int:
        """Number of tokens that next-token prediction learns from."""
        return sum(len(caption) for caption in self.long if caption is not None)

    def short_hashes(self, near: bool) -> torch.Tensor:
        """Return `(B,)` int64 that are equal where two short captions are the same.

        Args:
            near: case, punctuation and articles do not count.
        """
        texts = [None if text is None else _normal_form(text, near) for text in self.short_texts]
        return _hashes([None if text is None else text.encode() for text in texts])

    def id_hashes(self) -> torch.Tensor:
        """Return `(B, 2)` int64: equal ids, equal number, for the short captions and the second ones."""
        columns = (self.short, self.other_short)
        return torch.stack([_hashes([None if c is None else c.numpy().tobytes() for c in rows]) for rows in columns], 1)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = {"a", "an", "the"}


def _normal_form(text: str, near: bool) -> str:
    if near:
        words = text.casefold().translate(_NO_PUNCTUATION).split()
        text = " ".join(word for word in words if word not in _ARTICLES)
    return text.strip()


def _hashes(items: Sequence[bytes | None]) -> torch.Tensor:
    """Return `(B,)` int64; an absent item is 0 and takes part in no comparison."""
    digests = [b"" if item is None else hashlib.blake2b(item, digest_size=8).digest() for item in items]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)
