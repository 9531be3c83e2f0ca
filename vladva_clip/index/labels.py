"""Labels as a zero-shot classifier."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vladva_clip.interface.arguments import whole_number
from vladva_clip.zero_shot.builder import build_zero_shot_classifier


def label_features(model: Any, tokenizer: Any, labels: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Return the features of labels, averaged over templates: `(D, C)` float32 on the model's device.

    Args:
        model: a VladvaCLIP.
        tokenizer: its tokenizer.
        labels: C names.
        templates: texts with a hole `{}` for the label.

    Raises:
        ValueError: a label twice, no labels, or as `build_zero_shot_classifier`.
    """
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"the label {label!r:.80} is there twice; remove one")
        seen.add(label)
    return build_zero_shot_classifier(model, tokenizer, list(labels), list(templates))


def classify(
    features: torch.Tensor | np.ndarray, classifier: torch.Tensor, logit_scale: float, top: int
) -> list[list[tuple[int, float, float]]]:
    """Choose the labels nearest to each picture.

    Args:
        features: `(N, D)`, rows of length 1.
        classifier: `(D, C)`, columns of length 1 (`label_features`).
        logit_scale: the factor, `model.logit_scale.exp()`.
        top: how many labels a picture gets, C at most.

    Returns:
        For each picture `(label index, cosine, probability)`, best first, ties in the order of the labels. The
        probability is the softmax of `logit_scale * cosine` over all C labels (CLIP, arXiv 2103.00020, section 3.1.2).

    Raises:
        ValueError: top below 1.
    """
    top = whole_number("top", top, 1)
    weights = classifier.detach().double().cpu()
    cosines = torch.as_tensor(features).detach().double().cpu() @ weights  # (N, C)
    probabilities = (float(logit_scale) * cosines).softmax(dim=1)
    order = cosines.argsort(dim=1, descending=True, stable=True)[:, :top]
    return [
        [(label, float(cosines[row, label]), float(probabilities[row, label])) for label in best]
        for row, best in enumerate(order.tolist())
    ]
