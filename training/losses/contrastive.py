"""Contrastive losses on the features of a global batch, computed as matrix products.

Every function takes normalized features and the logit scale as the parameter stores it, as a log; the factor is its
exponential. Rows without a partner (`valid` False) count neither as rows nor as columns.
"""

import torch
import torch.nn.functional as F

NEVER = float("-inf")


def info_nce(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor,
    *,
    valid: torch.Tensor | None = None,
    same: torch.Tensor | None = None,
    hard_negatives: torch.Tensor | None = None,
    hard_valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE: the sum of both directions' cross-entropies (VladVA, section 3.2.1, equation 1).

    That is twice CLIP's loss (arXiv 2103.00020, figure 3) and open_clip's `ClipLoss`, which take the mean of the two.

    Args:
        image_features, text_features: `(B, D)`, normalized; row i of one belongs to row i of the other.
        logit_scale: scalar, the log of the factor.
        valid: `(B,)` bool, the rows that have both; None for all.
        same: `(B, B)` bool, `[i, j]` off the diagonal where text j is not a negative of image i (a false negative).
        hard_negatives: `(B, K, D)`, normalized false captions of each image; they are negatives of that image only.
        hard_valid: `(B, K)` bool, those that exist; None for all.

    Returns:
        A scalar: the mean over valid rows of the sum of both directions, in nats; 0 if no row is valid.
    """
    logits = logit_scale.exp() * image_features @ text_features.T
    return _symmetric(logits, logit_scale, image_features, valid, same, hard_negatives, hard_valid)


def hardness_weighted_info_nce(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor,
    hardness: float,
    *,
    valid: torch.Tensor | None = None,
    same: torch.Tensor | None = None,
    hard_negatives: torch.Tensor | None = None,
    hard_valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE with negatives weighted by `exp(hardness * cosine)`, without gradient (LLaVE, arXiv 2503.04812).

    Arguments and result are those of `info_nce`, which this is for `hardness` 0: both directions are summed.
    """
    cosines = image_features @ text_features.T
    off_diagonal = 1 - torch.eye(len(cosines), dtype=cosines.dtype, device=cosines.device)
    logits = logit_scale.exp() * cosines + hardness * cosines.detach() * off_diagonal
    return _symmetric(logits, logit_scale, image_features, valid, same, hard_negatives, hard_valid, hardness)


def sigmoid_loss(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    *,
    valid: torch.Tensor | None = None,
    same: torch.Tensor | None = None,
    hard_negatives: torch.Tensor | None = None,
    hard_valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """SigLIP's loss (arXiv 2303.15343, equation 1): each pair is a binary classification.

    Arguments are those of `info_nce`. `logit_bias` is a scalar added to every logit; the sum over all pairs is divided
    by the number of valid rows. Each pair counts once, so there are no directions to sum.
    """
    valid = _all_rows(image_features) if valid is None else valid
    logits = logit_scale.exp() * image_features @ text_features.T + logit_bias
    labels = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    counted = valid[:, None] & valid[None, :] & ~_false_negatives(same, logits)
    loss = -(F.logsigmoid(labels * logits) * counted).sum()
    if hard_negatives is not None:
        hard = _hard_logits(image_features, hard_negatives, logit_scale) + logit_bias
        counted = valid[:, None] & (torch.ones_like(hard, dtype=torch.bool) if hard_valid is None else hard_valid)
        loss = loss - (F.logsigmoid(-hard) * counted).sum()
    return loss / valid.sum().clamp(min=1)


def _symmetric(logits, logit_scale, image_features, valid, same, hard_negatives, hard_valid, hardness=0.0):
    valid = _all_rows(image_features) if valid is None else valid
    blocked = _false_negatives(same, logits) | ~valid[:, None] | ~valid[None, :]
    # an invalid row keeps its own column, so that its softmax is defined; it is multiplied by zero below
    logits = logits.masked_fill(blocked & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device), NEVER)
    image_rows = logits
    if hard_negatives is not None:
        hard = _hard_logits(image_features, hard_negatives, logit_scale, hardness)
        image_rows = torch.cat([logits, hard if hard_valid is None else hard.masked_fill(~hard_valid, NEVER)], dim=1)
    labels = torch.arange(len(logits), device=logits.device)
    losses = (
        F.cross_entropy(image_rows, labels, reduction="none"),
        F.cross_entropy(logits.T, labels, reduction="none"),
    )
    return (sum(losses) * valid).sum() / valid.sum().clamp(min=1)


def _hard_logits(image_features, hard_negatives, logit_scale, hardness=0.0):
    cosines = torch.einsum("bd,bkd->bk", image_features, hard_negatives)
    return logit_scale.exp() * cosines + hardness * cosines.detach()


def _all_rows(features: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(features), dtype=torch.bool, device=features.device)


def _false_negatives(same: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor:
    """The off-diagonal pairs of `same`."""
    if same is None:
        return torch.zeros_like(logits, dtype=torch.bool)
    return same & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
