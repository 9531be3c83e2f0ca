"""A block of a contact sheet: pictures, with a bar for each caption they were offered.

Bars show cosines on a common axis from 0 to 1, so that near ties look like ties. The probability, which CLIP's users
usually see, is printed beside each bar: softmax makes a small difference look large.
"""

import torch
from PIL import Image, ImageDraw

from vladva_clip.pictures.drawing import GRAY, HEAD, INK, LIGHT, LINE, RIGHT, WRONG, block, framed, write
from vladva_clip.quickstart.gallery import SHOWN, Answers, Picture

WIDTH, THUMB, STEP = 566, 120, 138  # pixels: the block, a picture, from one picture to the next
LEFT, AXIS, ENTRY = THUMB + 14, 300, 30  # pixels: start of the bars, the axis from 0 to 1, from bar to bar
AXIS_HEIGHT = 2 * LINE + 6  # pixels above the first picture


def worst_margins(scores: torch.Tensor) -> torch.Tensor:
    """Return how far the first score of each row `(n, k)` is above the best of the others, `(n,)`."""
    return scores[:, 0] - scores[:, 1:].amax(dim=1)


def shown(scores: torch.Tensor) -> list[int]:
    """Return the indices of the pictures to draw: `SHOWN`, and the one with the smallest margin among the others."""
    margins = worst_margins(scores)
    margins[list(SHOWN)] = float("inf")
    return [*SHOWN, int(margins.argmin())]


def bars(
    question: str, titles: tuple[str, str], gallery: list[Picture], pictures: list[Image.Image], answers: Answers
) -> Image.Image:
    """Draw the block of one question of `Picture.offered`: one picture per row, the true caption first."""
    scores = answers.offered[question]
    right = int((worst_margins(scores) > 0).sum())
    note = f"{titles[1]}; right in {right} of {len(gallery)}"
    rows = shown(scores)
    image, pen = block(titles[0], note, WIDTH, AXIS_HEIGHT + len(rows) * STEP)
    _axis(pen, image.height, answers.logit_scale)
    for number, index in enumerate(rows):
        top = HEAD + AXIS_HEIGHT + number * STEP
        color = RIGHT if worst_margins(scores)[index] > 0 else WRONG
        image.paste(framed(pictures[index], THUMB, color), (0, top))
        _entries(pen, top, gallery[index].offered[question], scores[index], answers.logit_scale)
    return image


def _axis(pen: ImageDraw.ImageDraw, bottom: int, logit_scale: float) -> None:
    """Draw the axis above the block's bars, and explain the two numbers."""
    softmax = f"Bars: cosine, from 0 to 1. Probability: softmax of {logit_scale:.1f} x cosine over the four captions."
    write(pen, (0, HEAD - 8), softmax, GRAY)
    y = HEAD + LINE
    for value in (0, 0.5, 1):
        x = LEFT + value * AXIS
        pen.line((x, y + 16, x, bottom - STEP + THUMB), LIGHT)
        write(pen, (x, y), f"{value:g}", GRAY, anchor="ma")
    write(pen, (LEFT + AXIS + 14, y), "cosine", GRAY)
    write(pen, (WIDTH, y), "probability", GRAY, anchor="ra")


def _entries(
    pen: ImageDraw.ImageDraw, top: int, captions: tuple[str, ...], scores: torch.Tensor, logit_scale: float
) -> None:
    probabilities = (logit_scale * scores).softmax(dim=0).tolist()
    for number, (text, cosine) in enumerate(zip(captions, scores.tolist(), strict=True)):
        y = top + number * ENTRY
        ahead = number and cosine >= float(scores[0])
        color = WRONG if ahead else (150, 150, 150) if number else RIGHT
        write(pen, (LEFT, y), text, INK)
        pen.rectangle((LEFT, y + 16, LEFT + AXIS * min(max(cosine, 0.0), 1.0), y + 24), color)
        write(pen, (LEFT + AXIS + 14, y + 13), f"{cosine:.3f}", INK)
        write(pen, (WIDTH, y + 13), f"{probabilities[number]:.1%}", INK, anchor="ra")
