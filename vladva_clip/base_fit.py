"""Whether a base's config.json describes a model that can be, and the one that its weight files hold."""

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from vladva_clip import weights
from vladva_clip.backbones import backbone_class
from vladva_clip.base_config import read_base_config
from vladva_clip.config import VladvaConfig

# what transformers' constructors raise for values that make no model; its strict dataclasses have a class of their own
_BUILD_ERRORS = (
    *(StrictDataclassError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
)


def check_image_size(directory: Path, config: VladvaConfig, stated_in: Path) -> None:
    """Refuse a checkpoint's image size that the base's vision tower can't take (another family is left to others).

    Args:
        directory: of the base.
        config: of the checkpoint.
        stated_in: the checkpoint's file.

    Raises:
        ValueError: the file, the size in pixels and what the tower takes.
    """
    base_config = read_base_config(directory)
    if base_config["model_type"] != config.base.family:
        return
    try:
        backbone_class(config.base.family).image_config(base_config, None, config.image.size)
    except ValueError as error:
        raise ValueError(f"{stated_in}: image.size doesn't fit the base {config.base.id}: {error}") from error


def check_builds(directory: Path, image_size: int) -> int:
    """Build the architecture without memory, so that a config.json of no model is told from weights of another one.

    Returns:
        The number of elements of its parameters.

    Raises:
        ValueError: what transformers can't build, what leaves nothing of the vision tower in use, or an image whose
            visual tokens fill the LLM's context.
    """
    base_config = read_base_config(directory)
    family = backbone_class(base_config["model_type"])
    try:
        backbone = family.from_config(base_config, torch.float32)
        used = backbone.num_visual_tokens(image_size), len(backbone.vision_blocks)
        context = backbone.lvlm.config.get_text_config().max_position_embeddings
        too_many = used[0] >= context
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
    if too_many:
        raise ValueError(
            f"image size {image_size} pixels makes {used[0]} visual tokens, but the LLM in {directory} has a context "
            f"of {context} (max_position_embeddings), which must hold the prompt too: take smaller images"
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
