"""What transformers, sentence-transformers and vLLM can be told about a model, and what they can't.

They lay out rows by a chat template, run the family's own forward, and take the last token's state.
"""

import torch

from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.storage.config import VladvaConfig

_INSTEAD = "use the model itself through vladva_clip, which open_clip's clients can load"


def refuse_stated(config: VladvaConfig) -> None:
    """Refuse a family, attention and pooling that no plain reader has, as far as the config alone shows.

    Raises:
        ValueError: the family or the setting, why it can't be exported, and what to do.
    """
    if reason := backbone_class(config.base.family).not_exported:
        raise ValueError(f"{reason}, so its export would give other vectors: {_INSTEAD}")
    if config.encoding.pooling == "mean":
        _refuse("pooling='mean'", "the export is read at the last token in all three libraries")
    if config.encoding.attention == "bidirectional":
        _refuse("attention='bidirectional'", "the readers run the LLM with causal attention")


def may_be_unreadable(config: VladvaConfig) -> bool:
    """Whether `refuse_unreadable` may refuse a model, which takes its base's tokenizer and architecture to say."""
    return config.encoding.positions == "plain" or config.prompt.visual_span is not None


def refuse_unreadable(config: VladvaConfig, backbone: Backbone, prompts: Prompts) -> None:
    """Refuse a model whose rows no plain reader would lay out.

    Args:
        config: the model's.
        backbone: the base's architecture, on the CPU; its weights aren't used.
        prompts: the model's templates.

    Raises:
        ValueError: the setting, why it can't be exported, and what to do.
    """
    encoding, span = config.encoding, config.prompt.visual_span
    if not _has_own_positions(backbone, prompts, config.image.size):
        return
    if encoding.positions == "plain":
        _refuse("positions='plain'", f"the readers give images the positions of {backbone.family}, which are others")
    if span not in (None, backbone.visual_span):
        _refuse(f"the visual span {span.text!r:.80}", f"some find images by {backbone.visual_span.text!r} only")


def _has_own_positions(backbone: Backbone, prompts: Prompts, image_size: int) -> bool:
    """Whether the family's positions of an image's row are others than 0, 1, 2, ..."""
    length = len(prompts.image_row(backbone.num_visual_tokens(image_size)))
    start = len(prompts.image.before) + len(prompts.visual_opening)
    family, plain = (backbone.position_ids(length, place, image_size) for place in (start, None))
    return not torch.equal(family, plain)


def _refuse(setting: str, reason: str) -> None:
    raise ValueError(f"the model has {setting}, but {reason}, so its export would give other vectors: {_INSTEAD}")
