"""What every visual token is asked while the base of vladva-tiny is pre-trained, and heads that answer."""

import math

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
    columns = []
    for patch in range(PATCHES**2):
        x, y = (patch % PATCHES + 0.5) / PATCHES, (patch // PATCHES + 0.5) / PATCHES
        found = _nearest(drawn, x, y)
        words = [getattr(found, name, None) for name in ("color", "shape", "size")]
        words += [found.place if found else _CELLS[int(3 * x), int(3 * y)], drawn.background.kind]
        columns.append([answers.index(word) for answers, word in zip(HEADS.values(), words, strict=True)])
    return torch.tensor(columns).T


_CELLS = {cell: name for name, cell in PLACES.items()}


def _nearest(drawn: Scene, x: float, y: float) -> SceneObject | None:
    """The object that is seen at a point of the square image."""
    found = [(_distance(drawn.look, one, x, y), one) for one in drawn.objects]
    distance, nearest = min(found, key=lambda pair: pair[0])
    return nearest if distance < 1 else None


def _distance(look: Look, one: SceneObject, x: float, y: float) -> float:
    """How far a point is from an object's center; 1 is where the object ends."""
    center = (one.x, one.y) if look.is_classic else leaning(one.x, one.y, look)
    wide, high = one.radius / look.ratio**0.5 + MARGIN, one.radius * look.ratio**0.5 + MARGIN
    return math.hypot((x - center[0]) / wide, (y - center[1]) / high)


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
