"""Which captions of the global batch are true of which pictures, by the facts that the data knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from vladva_training.step.batches import Batch
from vladva_training.step.identity import UNKNOWN

# fixed, so that the tensors of all processes have the same shape
MAX_FACTS = 256
"""The most facts of a picture."""
MAX_CLAIMS = 16
"""The most facts that a caption may claim."""
_NOTHING = (UNKNOWN,) * MAX_CLAIMS


class Truth(NamedTuple):
    """Which captions are true of which pictures.

    short, other_short: `(B, B)` bool, `[i, j]` where image j's short (second short) caption is true of image i.
    hard_negatives: `(B, K)` bool, those that are true of their image.
    """

    short: torch.Tensor
    other_short: torch.Tensor
    hard_negatives: torch.Tensor


@dataclass(frozen=True)
class Known:
    """What is true of a batch's pictures and what its captions claim, as identities; the rest is `UNKNOWN`.

    facts: `(B, MAX_FACTS)` int64. claims: `(B, 2 + K, MAX_CLAIMS)` int64, of the short, second and false captions.
    """

    facts: torch.Tensor
    claims: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, num_hard_negatives: int) -> "Known":
        """Read it from a batch, with room for `num_hard_negatives` (K) false captions per image.

        Raises:
            ValueError: an image has more facts, or a caption more claims, than there is room for.
        """
        width = 2 + num_hard_negatives
        _check(batch.facts, MAX_FACTS, "facts of a picture")
        _check([claims for rows in batch.claims for claims in rows], MAX_CLAIMS, "claims of a caption")
        facts = torch.nn.utils.rnn.pad_sequence(list(batch.facts), batch_first=True, padding_value=UNKNOWN)
        captions = [(*rows, *[()] * width)[:width] for rows in batch.claims]
        claims = [[(*claims, *_NOTHING)[:MAX_CLAIMS] for claims in rows] for rows in captions]
        return cls(F.pad(facts, (0, MAX_FACTS - facts.shape[1]), value=UNKNOWN), torch.tensor(claims))

    def pack(self) -> torch.Tensor:
        """Return everything as one `(B, MAX_FACTS + (2 + K) MAX_CLAIMS)` int64 tensor."""
        return torch.cat([self.facts, self.claims.flatten(1)], dim=1)

    @classmethod
    def unpack(cls, packed: torch.Tensor) -> "Known":
        """The inverse of `pack`."""
        return cls(packed[:, :MAX_FACTS], packed[:, MAX_FACTS:].unflatten(1, (-1, MAX_CLAIMS)))

    def truth(self, picture: torch.Tensor) -> Truth:
        """Return which captions are true of which pictures.

        Args:
            picture: `(B,)` int64, for each image the first row with the same picture: its rows share their facts.
        """
        holders, columns = self._holders(picture)
        claims_any = (self.claims != UNKNOWN).any(dim=-1)  # (B, 2 + K)
        short, other = (_all_held(holders, columns[:, n]).T & claims_any[:, n] for n in range(2))
        own = torch.arange(len(picture), device=picture.device)[:, None, None]
        hard = holders[columns[:, 2:], own].all(dim=-1) & claims_any[:, 2:]
        return Truth(short, other, hard)

    def _holders(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up every different claim once.

        Returns:
            `(U, B)` bool, which pictures have each of the U different claims among their facts, and `(B, 2 + K,
            MAX_CLAIMS)` int64, the claims as row numbers of it. What pads the claims is held by every picture.
        """
        different, columns = self.claims.unique(return_inverse=True)
        places = torch.searchsorted(different, self.facts.contiguous()).clamp(max=len(different) - 1)
        found = different[places] == self.facts
        holders = torch.zeros(len(different), len(picture), dtype=torch.bool, device=picture.device)
        holders[places[found], picture[:, None].expand_as(places)[found]] = True
        return (holders[:, picture] | (different == UNKNOWN)[:, None]), columns


def _all_held(holders: torch.Tensor, claims: torch.Tensor) -> torch.Tensor:
    """Return which pictures have all claims of each caption: `(B captions, B pictures)` bool."""
    held = torch.ones(len(claims), holders.shape[1], dtype=torch.bool, device=holders.device)
    for number in claims.unbind(1):  # one after another: all at once would be (B, MAX_CLAIMS, B)
        held &= holders[number]
    return held


def _check(rows: Sequence, most: int, what: str) -> None:
    found = max(map(len, rows), default=0)
    if found > most:
        raise ValueError(f"found {found} {what}, expected at most {most}")
