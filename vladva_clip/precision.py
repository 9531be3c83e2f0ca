"""open_clip's names of precisions -> dtypes."""

import warnings

import torch

from vladva_clip.backbones import backbone_class
from vladva_clip.config import VladvaConfig

PRECISIONS = {  # open_clip's names; "amp" means fp32 weights, the autocast is the caller's
    **dict.fromkeys(("fp32", "amp", "amp_bf16", "amp_bfloat16", "pure_fp32"), "float32"),
    **dict.fromkeys(("bf16", "pure_bf16"), "bfloat16"),
    **dict.fromkeys(("fp16", "pure_fp16"), "float16"),
}


def torch_dtype(config: VladvaConfig, precision: str | None) -> torch.dtype:
    """Return the dtype of a precision name, the config's own for None.

    Raises:
        ValueError: an unknown precision; the known ones are listed.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    name = PRECISIONS[precision] if precision else config.dtype
    if reason := backbone_class(config.base.family).poor_dtypes.get(name):
        warnings.warn(reason, stacklevel=2)
    return getattr(torch, name)
