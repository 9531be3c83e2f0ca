"""The dtype of a model's weights for a precision word such as "bf16"."""

import torch

from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.interface import precision_words
from vladva_clip.interface.quiet import warn
from vladva_clip.storage.config import VladvaConfig


def torch_dtype(config: VladvaConfig, precision: str | torch.dtype | None) -> torch.dtype:
    """Return the dtype for a precision (see `precision_words`); for None, the config's own.

    Warns if the family computes poorly in that dtype.

    Raises:
        ValueError: an unknown precision (the known ones are listed), or one in which the family can't compute.
    """
    name = config.dtype if precision is None else precision_words.DTYPES[precision_words.parse("precision", precision)]
    family = backbone_class(config.base.family)
    if reason := family.refused_dtypes.get(name):
        raise ValueError(f"precision {precision or name}: {reason}")
    if reason := family.poor_dtypes.get(name):
        warn(reason)
    return getattr(torch, name)
