"""Whether a base's config.json describes a model that can be, and the one that its weight files hold."""

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from vladva_clip import weights
from vladva_clip.backbones import backbone_class
from vladva_clip.base_config import read_base_config

# what transformers' constructors raise for values that make no model; its strict dataclasses have a class of their own
_BUILD_ERRORS = (
    *(StrictDataclassError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
)


def check_builds(directory: Path, image_size: int) -> int:
    """Build the architecture without memory, so that a config.json of no model is told from weights of another one.

    Returns:
        The number of elements of its parameters.

    Raises:
        ValueError: what transformers can't build, or what leaves nothing of the vision tower in use.
    """
    base_config = read_base_config(directory)
    family = backbone_class(base_config["model_type"])
    try:
        backbone = family.from_config(base_config, torch.float32)
        used = backbone.num_visual_tokens(image_size), len(backbone.vision_blocks)
    except _BUILD_ERRORS as error:
        raise ValueError(
            f"{directory / 'config.json'} describes no {family.family} model that transformers can build "
            f"({type(error).__name__}: {error}); get the file again"
        ) from error
    if 0 in used:
        raise ValueError(
            f"{directory / 'config.json'} leaves {used[0]} visual tokens and {used[1]} blocks of the vision tower in "
            "use, expected at least one of each; get the file again"
        )
    return sum(parameter.numel() for parameter in backbone.parameters())


def check_volume(directory: Path, needed: int) -> None:
    """Refuse a config.json of a model so much larger than its files that building it would take memory for nothing.

    Single tensors that are missing or misshapen are left to transformers, which names them.

    Raises:
        ValueError: the files hold less than half of the elements needed.
    """
    found = weights.num_elements(directory)
    if needed > 2 * found:
        raise ValueError(
            f"{directory / 'config.json'} describes a model of {needed} elements, but the weight files beside it hold "
            f"{found}: they don't belong together; get the files again"
        )
