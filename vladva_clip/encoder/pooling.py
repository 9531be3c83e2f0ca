"""Features from hidden states: each row's state at its summary token, or the mean of its states."""

import torch


def summary_features(hidden_states: torch.Tensor, summary_index: torch.Tensor) -> torch.Tensor:
    """Gather each row's hidden state at its summary token (VladVA, section 3.1: the last token of the template).

    Args:
        hidden_states: `(B, T, D)`, the trunk's last layer after the final norm.
        summary_index: `(B,)` int64, position of the summary token in each row.

    Returns:
        `(B, D)` float32 (float64 for float64 states), a fresh tensor.
    """
    rows = torch.arange(hidden_states.shape[0], device=hidden_states.device)
    features = hidden_states[rows, summary_index]  # indexing copies, so the result is fresh in float32 too
    return features.to(torch.promote_types(features.dtype, torch.float32))


def mean_features(hidden_states: torch.Tensor, summary_index: torch.Tensor) -> torch.Tensor:
    """Average each row's hidden states from its first token to its summary token; padding does not count.

    Args:
        hidden_states: `(B, T, D)`, the trunk's last layer after the final norm.
        summary_index: `(B,)` int64, position of the last token that counts in each row.

    Returns:
        `(B, D)` float32 (float64 for float64 states), summed in that precision.
    """
    states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
    states = states * attended(summary_index, states.shape[1])[..., None]
    return states.sum(1) / (summary_index + 1)[:, None]


def attended(summary_index: torch.Tensor, length: int) -> torch.Tensor:
    """Return which of `length` tokens are a row's own, up to its summary token: `(B, length)` bool."""
    return torch.arange(length, device=summary_index.device) <= summary_index[:, None]
