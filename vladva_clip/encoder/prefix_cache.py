"""Keys and values of a beginning that several rows share: it runs through the trunk once.

Attention is causal, so a token never sees what follows it, and the features equal those of whole rows up to rounding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

MIN_ROWS = 16  # fewer rows don't pay for running and keeping a beginning of their own


class PrefixCache(DynamicCache):
    """Keys and values of several prefixes of one length, put before the rows of later batches.

    The first forward pass, with a row for each prefix, fills it; after `put_before` it is only read.
    """

    chosen: torch.Tensor | None = None

    def put_before(self, prefixes: Sequence[int]) -> None:
        """Choose the prefix of each row of the next batch."""
        self.chosen = torch.tensor(prefixes)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's keys and values, `(B, heads, T, head size)`, with each row's prefix in front of its own."""
        if self.chosen is None:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        kept, chosen = self.layers[layer_idx], self.chosen.to(key_states.device)
        return torch.cat([kept.keys[chosen], key_states], -2), torch.cat([kept.values[chosen], value_states], -2)
