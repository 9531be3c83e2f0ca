"""Cross-entropy of labeled positions, computed with one chunk of logits at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

Head = Callable[[torch.Tensor], torch.Tensor]


def next_token_loss(
    hidden_states: torch.Tensor, labels: torch.Tensor, head: Head, chunk: int = 512, frozen_head: bool = False
) -> torch.Tensor:
    """Sum the next-token cross-entropy (VladVA, section 3.2.2, equation 2) over labeled positions.

    Logits exist for one chunk at a time. With a frozen head, each chunk's gradient is computed while its logits exist;
    otherwise the backward pass recomputes them.

    Args:
        hidden_states: `(K, D)`, of the labeled positions only.
        labels: `(K,)` int64, the id that follows each.
        head: the language-model head, `(k, D)` -> `(k, V)`.
        chunk: positions whose logits exist at the same time.
        frozen_head: nothing in the head trains.

    Returns:
        A scalar, the sum in nats, float32 (float64 for float64 states). Divide it by the number of labeled tokens in
        the whole batch.

    Raises:
        ValueError: the numbers of labels and states differ.
    """
    if len(hidden_states) != len(labels):
        raise ValueError(f"{len(hidden_states)} hidden states for {len(labels)} labels, expected equal numbers")
    parts = list(zip(hidden_states.split(chunk), labels.split(chunk), strict=True))
    if frozen_head and torch.is_grad_enabled() and hidden_states.requires_grad:
        values, gradients = zip(*(_with_gradient(*part, head) for part in parts), strict=True)
        return _Known.apply(hidden_states, torch.stack(values).sum(), torch.cat(gradients))
    if len(parts) == 1:
        return _cross_entropy(hidden_states, labels, head)
    return torch.stack([checkpoint(_cross_entropy, *part, head, use_reentrant=False) for part in parts]).sum()


class _Known(torch.autograd.Function):
    """A value whose gradient is already known."""

    @staticmethod
    def forward(ctx, hidden_states: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx, factor: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * factor.to(gradient.dtype), None, None


def _with_gradient(states: torch.Tensor, labels: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    states = states.detach().requires_grad_()
    value = _cross_entropy(states, labels, head)
    value.backward()  # reaches only the states: the head is frozen
    return value.detach(), states.grad


def _cross_entropy(hidden_states: torch.Tensor, labels: torch.Tensor, head: Head) -> torch.Tensor:
    logits = head(hidden_states)
    return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), labels, reduction="sum")
