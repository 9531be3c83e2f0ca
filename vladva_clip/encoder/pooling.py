"""Features from hidden states: each row's state at its summary token."""

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
