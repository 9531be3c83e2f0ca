"""Class names and templates -> one feature per class, by the public `vladva_clip.build_zero_shot_classifier`."""

from collections.abc import Sequence

import torch

import vladva_clip
from vladva_benchmarks.suites.models import Encoder
from vladva_clip.zero_shot.rendering import CLIP_BENCHMARKS_HOLE, renderers


def class_features(encoder: Encoder, classnames: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Embed classes as the mean of their prompts.

    Args:
        encoder: the model.
        classnames: C names.
        templates: with the hole `{c}`.

    Returns:
        `(C, D)` float32, normalized.

    Raises:
        ValueError: as `vladva_clip.build_zero_shot_classifier`.
    """
    prompts = renderers(classnames, templates, CLIP_BENCHMARKS_HOLE)
    weights = vladva_clip.build_zero_shot_classifier(
        encoder.model, encoder.tokenizer, list(classnames), prompts, num_classes_per_batch=10, device=encoder.device
    )
    return torch.nn.functional.normalize(weights.T.float().cpu(), dim=-1)
