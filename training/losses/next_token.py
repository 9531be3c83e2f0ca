"""Cross-entropy of labelled positions, a chunk of logits at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

Head = Callable[[torch.Tensor], torch.Tensor]


def next_token_loss(hidden_states: torch.Tensor, labels: torch.Tensor, head: Head, chunk: int = 2048) -> torch.Tensor:
    """Sum the next-token cross-entropy (VladVA, section 3.3) over labelled positions.

    Logits exist for one chunk at a time, in the forward and in the backward pass, where they are computed again.

    Args:
        hidden_states: `(K, D)`, those of the labelled positions alone.
        labels: `(K,)` int64, the id that follows each.
        head: the language-model head, `(k, D)` -> `(k, V)`.
        chunk: positions whose logits exist at a time.

    Returns:
        A scalar, the sum in nats, float32 (float64 for float64 states): divide it by the labelled tokens of the whole
        batch.

    Raises:
        ValueError: as many labels as states are needed.
    """
    if len(hidden_states) != len(labels):
        raise ValueError(f"{len(hidden_states)} hidden states for {len(labels)} labels, expected as many")
    if len(labels) <= chunk:
        return _cross_entropy(hidden_states, labels, head)
    parts = zip(hidden_states.split(chunk), labels.split(chunk), strict=True)
    return torch.stack([checkpoint(_cross_entropy, *part, head, use_reentrant=False) for part in parts]).sum()


def _cross_entropy(hidden_states: torch.Tensor, labels: torch.Tensor, head: Head) -> torch.Tensor:
    logits = head(hidden_states)
    return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), labels, reduction="sum")
