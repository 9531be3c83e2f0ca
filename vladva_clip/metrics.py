"""Scores of an encoder from its similarities; nothing here knows a model."""

import torch


def recall_at_k(similarity: torch.Tensor, positives: torch.Tensor, k: int) -> float:
    """Share of queries with at least one positive among their k best items (recall as the CLIP papers define it).

    Args:
        similarity: `(Q, N)`, higher is nearer.
        positives: `(Q, N)` bool, True where the item answers the query.
        k: number of items looked at.

    Returns:
        A fraction in [0, 1]. A positive that only ties with a wrong item for place k does not count: the k best are
        those with fewer than k wrong items at least as similar.

    Raises:
        ValueError: unequal shapes, or a similarity that is not a number.
    """
    if similarity.shape != positives.shape:
        raise ValueError(
            f"similarity is {tuple(similarity.shape)} and positives {tuple(positives.shape)}; expected equal"
        )
    if similarity.isnan().any():
        raise ValueError(
            f"{int(similarity.isnan().sum())} similarities are NaN, expected numbers: look at the features"
        )
    best = similarity.masked_fill(~positives, float("-inf")).amax(dim=1, keepdim=True)  # (Q, 1)
    ahead = ((similarity >= best) & ~positives).sum(dim=1)
    return ((ahead < k) & positives.any(dim=1)).float().mean().item()


def foil_accuracy(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Share of pairs whose true caption scores strictly above its foil (SugarCrepe's rule: a tie is wrong).

    Args:
        positive: `(N,)` similarity of each image to its true caption.
        negative: `(N,)` similarity of each image to its foil.

    Returns:
        A fraction in [0, 1].
    """
    return (positive > negative).float().mean().item()
