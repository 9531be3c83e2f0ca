"""The language-model head: its place in a base that has none, and what needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vladva_clip.storage.config import VladvaConfig

if TYPE_CHECKING:
    from vladva_clip.encoder.backbones.base import Backbone

MISSING = (
    "this base was published without its language-model head, so it can't generate or predict tokens: use it as an "
    "encoder only (training needs loss.ntp_weight=0), or load the LVLM it was made from to write captions"
)


class NoHead(nn.Module):
    """Stands where the head would be, and refuses to be used."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Raise ValueError."""
        raise ValueError(MISSING)


def take_away(lvlm: nn.Module) -> None:
    """Put `NoHead` where transformers' model has its head, or would have one, in place."""
    if lvlm.get_output_embeddings() is None:  # an embedder's class, which has no place for a head
        lvlm.lm_head = NoHead()
    else:
        lvlm.set_output_embeddings(NoHead())


def is_there(lvlm: nn.Module) -> bool:
    """Whether a model has a head."""
    return not isinstance(lvlm.get_output_embeddings(), NoHead)


def is_tied(lvlm: nn.Module) -> bool:
    """Whether a model's head and its token embedding are one tensor."""
    return is_there(lvlm) and lvlm.get_output_embeddings().weight is lvlm.get_input_embeddings().weight


def require(backbone: Backbone, config: VladvaConfig) -> None:
    """Refuse what needs next tokens: captions, and their loss.

    Raises:
        ValueError: bidirectional attention, an LLM that ends in a projection, or a base without a head.
    """
    base, encoding = config.base.id, config.encoding
    if not encoding.is_causal:
        raise ValueError(
            f"{base} is read with bidirectional attention, in which each token sees those behind it: it can't "
            "generate or predict tokens (training needs loss.ntp_weight=0)"
        )
    if encoding.projection is not None:
        raise ValueError(
            f"the LLM of {base} ends in a projection to features, which no head takes: it can't generate or predict "
            "tokens (training needs loss.ntp_weight=0)"
        )
    if not backbone.has_head:
        raise ValueError(f"{base}: {MISSING}")
