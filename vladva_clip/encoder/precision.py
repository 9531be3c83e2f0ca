"""A precision's word -> the dtype that a model's weights get."""

import warnings

import torch

from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.interface import precision_words
from vladva_clip.storage.config import VladvaConfig


def torch_dtype(config: VladvaConfig, precision: str | torch.dtype | None) -> torch.dtype:
    """Return the dtype of a precision (see `precision_words`), the config's own for None.

    Raises:
        ValueError: an unknown precision; the known words are listed.
    """
    name = config.dtype if precision is None else precision_words.DTYPES[precision_words.parse("precision", precision)]
    if reason := backbone_class(config.base.family).poor_dtypes.get(name):
        warnings.warn(reason, stacklevel=2)
    return getattr(torch, name)
