"""The contrastive part of the loss, on the features of the global batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from vladva_training.config import LossSection
from vladva_training.losses import CONTRASTIVE
from vladva_training.step.batches import Batch
from vladva_training.step.identity import UNKNOWN
from vladva_training.step.known import Known, Truth


@dataclass(frozen=True)
class Presence:
    """Which captions a batch's images have, and which pictures and captions are the same.

    A picture's captions are those of all its rows. So an image and a text from different rows may be known to match,
    and then they are not a negative pair. With `known`, the records' facts decide too.

    short, other_short: `(B,)` bool. hard_negatives: `(B, K)` bool. pictures: `(B,)` int64, identities. hashes:
    `(B, 2 + K, 2)` int64 from `Batch.caption_hashes`. known: of the same images, None if facts don't count.
    """

    short: torch.Tensor
    other_short: torch.Tensor
    hard_negatives: torch.Tensor
    pictures: torch.Tensor
    hashes: torch.Tensor
    known: Known | None = None

    @classmethod
    def of(cls, batch: Batch, num_hard_negatives: int, near: bool, known: bool = False) -> "Presence":
        """Read it from a batch, with room for `num_hard_negatives` false captions per image.

        Args:
            batch: images with their captions.
            num_hard_negatives: K.
            near: captions that differ in case, punctuation and articles are the same.
            known: the records' facts count.

        Raises:
            ValueError: an image has more hard negatives than that; more facts or claims than `Known` has room for.
        """
        counts = torch.tensor([len(captions) for captions in batch.hard_negatives])
        if (counts > num_hard_negatives).any():
            raise ValueError(
                f"an image has {int(counts.max())} hard negatives, loss.hard_negatives is {num_hard_negatives}"
            )
        return cls(
            torch.tensor([caption is not None for caption in batch.short]),
            torch.tensor([caption is not None for caption in batch.other_short]),
            torch.arange(num_hard_negatives) < counts[:, None],
            torch.tensor(batch.pictures, dtype=torch.int64),
            batch.caption_hashes(num_hard_negatives, near),
            Known.of(batch, num_hard_negatives) if known else None,
        )

    def pack(self) -> torch.Tensor:
        """Return everything as one `(B, 7 + 3 K)` int64 tensor, or a wider one with `known`."""
        flags = torch.cat([self.short[:, None], self.other_short[:, None], self.hard_negatives], dim=1)
        known = [self.known.pack()] if self.known else []
        return torch.cat([self.pictures[:, None], flags.long(), self.hashes.flatten(1), *known], dim=1)

    @classmethod
    def unpack(cls, packed: torch.Tensor, num_hard_negatives: int) -> "Presence":
        """The inverse of `pack`."""
        width = 2 + num_hard_negatives
        pictures, flags, hashes, rest = packed.tensor_split([1, 1 + width, 1 + 3 * width], dim=1)
        flags, hashes = flags.bool(), hashes.unflatten(1, (width, 2))
        known = Known.unpack(rest) if rest.shape[1] else None
        return cls(flags[:, 0], flags[:, 1], flags[:, 2:], pictures[:, 0], hashes, known)

    def same_picture(self) -> torch.Tensor:
        """Return which pairs of images are the same picture: `(B, B)` bool, True on the diagonal."""
        return _equal(self.pictures[:, None], self.pictures[:, None]) | self._itself

    def same_short(self) -> torch.Tensor:
        """Return which pairs match: `(B, B)` bool, `[i, j]` where short caption j is a caption of image i's picture, or
        is known to be true of it."""
        short, other = self.hashes[:, 0], self.hashes[:, 1]
        captions = _equal(short, short) | _equal(other, short) | self._itself
        same = _joined(self.same_picture(), captions)
        return same if self._truth is None else same | self._truth.short

    def same_either(self) -> torch.Tensor:
        """Return which pairs of captions match: `(B, B)` bool, `[i, j]` for short caption i and second caption j.

        They do if their images are the same picture or share a short or second caption, or if one of the two captions
        is known to be true of the other's picture.
        """
        short, other = self.hashes[:, 0], self.hashes[:, 1]
        crossed = _equal(short, other)
        captions = _equal(short, short) | crossed | crossed.T | _equal(other, other) | self._itself
        picture = self.same_picture()
        same = _joined(_joined(picture, captions), picture)
        return same if self._truth is None else same | self._truth.short.T | self._truth.other_short

    def true_hard_negatives(self) -> torch.Tensor:
        """Return which hard negatives are a short or second caption of their image's picture, or are known to be true
        of it: `(B, K)` bool."""
        found, picture = torch.zeros_like(self.hard_negatives), self.same_picture()
        for number in range(found.shape[1]):
            hard = self.hashes[:, 2 + number]
            captions = _equal(hard, self.hashes[:, 0]) | _equal(hard, self.hashes[:, 1])  # (B, B)
            found[:, number] = (captions & picture).any(dim=1)
        return found if self._truth is None else found | self._truth.hard_negatives

    def counts(self, own: slice) -> torch.Tensor:
        """Count what the data report needs from a global batch.

        Args:
            own: the rows of this process.

        Returns:
            `(3,)` int64: rows of the global batch that share their picture with another row; own rows that share it
            only with rows of other processes; own hard negatives that are true captions.
        """
        shared = self.same_picture() & ~self._itself
        anywhere, here = shared.any(dim=1), shared[own, own].any(dim=1)
        true = self.hard_negatives & self.true_hard_negatives()
        return torch.stack([anywhere.sum(), (anywhere[own] & ~here).sum(), true[own].sum()])

    @cached_property
    def _truth(self) -> Truth | None:
        """What the facts say; None if they don't count."""
        first = self.same_picture().int().argmax(dim=1)
        return self.known.truth(first) if self.known else None

    @property
    def _itself(self) -> torch.Tensor:
        return torch.eye(len(self.pictures), dtype=torch.bool, device=self.pictures.device)


def _equal(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return which pairs of rows of two `(B, n)` have the same known hash in some column: `(B, B)` bool."""
    pairs = zip(one.unbind(1), other.unbind(1), strict=True)
    found = [(mine[:, None] == theirs[None, :]) & (mine != UNKNOWN)[:, None] for mine, theirs in pairs]
    return torch.stack(found).any(dim=0)


def _joined(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the pairs `[i, k]` that some j joins, with `one[i, j]` and `other[j, k]`: `(B, B)` bool."""
    return (one.float() @ other.float()) > 0  # GPUs can't multiply bool matrices


def place(image_features: torch.Tensor, text_features: torch.Tensor, presence: Presence) -> torch.Tensor:
    """Put a micro-batch's features side by side, one row per image: `(b, 3 + K, D)`; absent ones are zero.

    Args:
        image_features: `(b, D)`.
        text_features: `(n, D)` in the order of `fused.text_rows`.
        presence: of the same images.
    """
    masks = [presence.short[:, None], presence.other_short[:, None], presence.hard_negatives]
    rows = text_features.split([int(mask.sum()) for mask in masks])
    texts = [_scatter(part, mask) for part, mask in zip(rows, masks, strict=True)]
    return torch.cat([image_features[:, None], *texts], dim=1)


def _scatter(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Put `(n, D)` rows into the n marked places of `(b, k)`: `(b, k, D)`."""
    empty = rows.new_zeros((*mask.shape, rows.shape[-1]))
    return empty.masked_scatter(mask.to(rows.device).unsqueeze(-1), rows)


def contrastive_losses(
    features: torch.Tensor, presence: Presence, scales: torch.Tensor, section: LossSection
) -> dict[str, torch.Tensor]:
    """Return the contrastive loss of the global batch and, if it has a weight, the text-text loss, each a scalar.

    Both are the same function, so with InfoNCE both are sums of two directions (VladVA, section 3.2.1).

    Args:
        features: `(B, 3 + K, D)` from `place`, normalized: image, short, other short, hard negatives.
        presence: of the same images, on the same device.
        scales: `(2,)`, logit scale (the log) and bias.
        section: which loss, with which options.
    """
    image, short, other_short, hard_negatives = features[:, 0], features[:, 1], features[:, 2], features[:, 3:]
    masks = section.false_negatives != "none"
    options: dict[str, torch.Tensor] = {"same": presence.same_short()} if masks else {}
    if hard_negatives.shape[1]:
        true = presence.true_hard_negatives() if masks else torch.zeros_like(presence.hard_negatives)
        options |= {"hard_negatives": hard_negatives, "hard_valid": presence.hard_negatives & ~true}
    losses = {"contrastive": _loss((image, short), presence.short, scales, section, options)}
    if section.text_text_weight:
        # both captions are the image's own, so its false captions are wrong for the text query too
        both = presence.short & presence.other_short
        options |= {"same": presence.same_either()} if masks else {}
        losses["text_text"] = _loss((short, other_short), both, scales, section, options)
    return losses


def _loss(
    pair: Sequence[torch.Tensor], valid: torch.Tensor, scales: torch.Tensor, section: LossSection, options: dict
) -> torch.Tensor:
    loss, (scale, bias) = CONTRASTIVE[section.contrastive], scales
    own = {key: getattr(section, key) for key in loss.settings} | ({"logit_bias": bias} if loss.has_bias else {})
    return loss.function()(*pair, scale, valid=valid, **own, **options)
