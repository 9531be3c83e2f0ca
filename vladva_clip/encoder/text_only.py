"""A model for texts alone: the memory of its vision tower is freed, and images are refused with the reason."""

from torch import nn

from vladva_clip.encoder.backbones.base import Backbone


class FreedTower(nn.Module):
    """Stands where the vision tower was."""


def free_tower(backbone: Backbone) -> None:
    """Free the vision tower of a loaded LVLM, in place; the projector, which is small, stays."""
    tower, parents = backbone.vision_tower, list(backbone.lvlm.modules())
    for parent in parents:
        for name, child in list(parent.named_children()):
            if child is tower:
                setattr(parent, name, FreedTower())


def sees(backbone: Backbone) -> bool:
    """Whether the LVLM has its vision tower."""
    return not isinstance(backbone.vision_tower, FreedTower)


def require_tower(backbone: Backbone, purpose: str) -> None:
    """Refuse what needs the vision tower.

    Args:
        backbone: of the model.
        purpose: what the tower is needed for, for the error.

    Raises:
        ValueError: the model was loaded for texts alone.
    """
    if not sees(backbone):
        raise ValueError(
            f"this model was loaded with text_only=True, so its vision tower is not in memory; to {purpose}, load it "
            "without that argument"
        )
