"""The contrastive part of the loss, on the features of the global batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vladva_training.batches import Batch
from vladva_training.config import LossSection
from vladva_training.losses import hardness_weighted_info_nce, info_nce, sigmoid_loss


@dataclass(frozen=True)
class Presence:
    """What a batch's images have, and which of their short captions are the same.

    short, other_short: `(B,)` bool. hard_negatives: `(B, K)` bool. hashes: `(B, 3)` int64, each column equal where
    captions are: the short ones' texts, the short ones' ids, the second ones' ids.
    """

    short: torch.Tensor
    other_short: torch.Tensor
    hard_negatives: torch.Tensor
    hashes: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, num_hard_negatives: int, near: bool) -> "Presence":
        """Read it off a batch, with room for `num_hard_negatives` false captions per image.

        Raises:
            ValueError: an image has more.
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
            torch.cat([batch.short_hashes(near)[:, None], batch.id_hashes()], dim=1),
        )

    def pack(self) -> torch.Tensor:
        """Return all of it as `(B, 5 + K)` int64."""
        flags = torch.cat([self.short[:, None], self.other_short[:, None], self.hard_negatives], dim=1)
        return torch.cat([self.hashes, flags.long()], dim=1)

    @classmethod
    def unpack(cls, packed: torch.Tensor) -> "Presence":
        """The inverse of `pack`."""
        flags = packed[:, 3:].bool()
        return cls(flags[:, 0], flags[:, 1], flags[:, 2:], packed[:, :3])

    def same_short(self) -> torch.Tensor:
        """Pairs of images whose short captions are the same: `(B, B)` bool."""
        return self.hashes[:, None, 0] == self.hashes[None, :, 0]

    def same_either(self) -> torch.Tensor:
        """Pairs of images of which any two captions, short or second, are the same: `(B, B)` bool."""
        short, other = self.hashes[:, 1], self.hashes[:, 2]
        crossed = short[:, None] == other[None, :]
        return self.same_short() | crossed | crossed.T | (other[:, None] == other[None, :])


def place(image_features: torch.Tensor, text_features: torch.Tensor, presence: Presence) -> torch.Tensor:
    """Put a micro-batch's features side by side, one row per image: `(b, 3 + K, D)`; what is absent is zero.

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
    """`(n, D)` rows to the n marked places of `(b, k)`: `(b, k, D)`."""
    empty = rows.new_zeros((*mask.shape, rows.shape[-1]))
    return empty.masked_scatter(mask.to(rows.device).unsqueeze(-1), rows)


def contrastive_losses(
    features: torch.Tensor, presence: Presence, scales: torch.Tensor, section: LossSection
) -> dict[str, torch.Tensor]:
    """Return the contrastive loss and, if asked for, the text-text loss of the global batch, each a scalar.

    Args:
        features: `(B, 3 + K, D)` from `place`, normalised: image, short, other short, hard negatives.
        presence: of the same images, on the same device.
        scales: `(2,)`, logit scale (the log) and bias.
        section: which loss, with which options.
    """
    image, short, other_short, hard_negatives = features[:, 0], features[:, 1], features[:, 2], features[:, 3:]
    masks = section.false_negatives != "none"
    options: dict[str, torch.Tensor] = {"same": presence.same_short()} if masks else {}
    if hard_negatives.shape[1]:
        options |= {"hard_negatives": hard_negatives, "hard_valid": presence.hard_negatives}
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
    scale, bias = scales
    if section.contrastive == "sigmoid":
        return sigmoid_loss(*pair, scale, bias, valid=valid, **options)
    if section.contrastive == "hardness":
        return hardness_weighted_info_nce(*pair, scale, section.hardness, valid=valid, **options)
    return info_nce(*pair, scale, valid=valid, **options)
