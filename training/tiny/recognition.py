"""What every visual token is asked while the base of vladva-tiny is pre-trained, and heads that answer."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vladva_clip.scenes import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES, Scene, SceneObject
from vladva_clip.scenes.drawing import leaning
from vladva_clip.scenes.looks import Look
from vladva_training.tiny.model import IMAGE_SIZE, PATCH_SIZE

PATCHES = IMAGE_SIZE // PATCH_SIZE
HEADS = {
    "color": (*COLORS, None),
    "shape": (*SHAPES, None),
    "size": (*SIZES, None),
    "place": tuple(PLACES),
    "background": BACKGROUNDS,
}
"""What each visual token is asked -> possible answers; None where no object is near."""

MARGIN = 0.04
"""How far outside an object's radius a patch's center may lie, as a share of the image, and still belong to it."""


def patch_labels(drawn: Scene) -> torch.Tensor:
    """The right answer of every head at every patch, row by row: (heads, patches).

    A patch shows the object whose center is nearest, if the patch's own center is within its radius and `MARGIN`. Its
    place is the object's, or without one its own cell of the 3 x 3 grid.
    """
    shown = _shown(drawn)
    own = [[HEADS[name].index(getattr(one, name)) for one in drawn.objects] for name in _OF_OBJECTS]
    labels = [np.array([*column, len(HEADS[name]) - 1])[shown] for name, column in zip(_OF_OBJECTS, own, strict=True)]
    labels[-1] = np.where(shown < len(drawn.objects), labels[-1], _CELLS)  # a patch without an object has a place too
    labels.append(np.full(PATCHES**2, BACKGROUNDS.index(drawn.background.kind)))
    return torch.from_numpy(np.stack(labels))


_OF_OBJECTS = ("color", "shape", "size", "place")
_CENTERS = (np.arange(PATCHES) + 0.5) / PATCHES
_X, _Y = np.tile(_CENTERS, PATCHES), np.repeat(_CENTERS, PATCHES)
_CELLS = np.array([list(PLACES.values()).index((int(3 * x), int(3 * y))) for x, y in zip(_X, _Y, strict=True)])
"""The place in which each patch lies."""


def _shown(drawn: Scene) -> np.ndarray:
    """Which object each patch shows: (patches,) its number, or the number of objects for none."""
    distances = np.stack([_distances(drawn.look, one) for one in drawn.objects])  # (objects, patches)
    return np.where(distances.min(axis=0) < 1, distances.argmin(axis=0), len(drawn.objects))


def _distances(look: Look, one: SceneObject) -> np.ndarray:
    """How far each patch's center is from an object's (patches,); 1 is where the object ends."""
    x, y = center_of(look, one)
    wide, high = one.radius / look.ratio**0.5 + MARGIN, one.radius * look.ratio**0.5 + MARGIN
    return np.hypot((_X - x) / wide, (_Y - y) / high)


def center_of(look: Look, one: SceneObject) -> tuple[float, float]:
    """Where an object's center is seen, as shares of the picture's width and height."""
    return (one.x, one.y) if look.is_classic else leaning(one.x, one.y, look)


class RecognitionHeads(nn.Module):
    """One linear head per question on every visual token."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, len(answers)) for answers in HEADS.values())

    def forward(self, visual_tokens: torch.Tensor) -> list[torch.Tensor]:
        """Logits (B, patches, answers) per head, of visual tokens (B, patches, width)."""
        states = self.norm(visual_tokens)
        return [head(states) for head in self.heads]


def recognition_loss(logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """The sum of the heads' mean cross-entropies; labels are (B, heads, patches)."""
    losses = [functional.cross_entropy(one.transpose(1, 2).float(), labels[:, i]) for i, one in enumerate(logits)]
    return torch.stack(losses).sum()
