"""One picture of a model's answers about a gallery: classes, retrieval, the captions it was offered, all figures.

The pictures shown follow a rule: `SHOWN`, and the one among the others on which the model does worst.
"""

import textwrap

import torch
from PIL import Image

from vladva_clip.metrics import wrong_items_ahead
from vladva_clip.pictures.drawing import (
    GRAY,
    HEAD,
    INK,
    LIGHT,
    LINE,
    RIGHT,
    WRONG,
    block,
    framed,
    stacked,
    write,
)
from vladva_clip.pictures.files import open_file
from vladva_clip.quickstart.gallery import ARRANGEMENTS, SHOWN, Answers, Picture
from vladva_clip.quickstart.gallery_figures import Figure, figures, in_words
from vladva_clip.quickstart.sheet_bars import bars

SMALL, STEP, HALF = 64, 70, 566  # pixels: a small picture, from one to the next, half of the sheet
TINY, TINY_STEP, BEST = 54, 58, 5  # pixels, pixels; number of nearest pictures drawn
SHOWN_RULE = "Shown: every ninth picture, and the worst of the rest"


def contact_sheet(gallery: list[Picture], class_names: list[str], answers: Answers) -> Image.Image:
    """Draw six blocks: predicted classes, retrieval, three questions with one bar per caption, and a table of figures.

    Returns:
        An RGB image about 1200 pixels wide; green is right, red is wrong.
    """
    pictures = [open_file(picture.path) for picture in gallery]
    order, relation, size = (
        bars(question, (title, SHOWN_RULE), gallery, pictures, answers)
        for question, title in (
            ("order", "Word order: true, then objects, colors, relation swapped"),
            ("relation", "Relation: all four offered, the true one first"),
            ("size", "Size: all four pairs offered, the true one first"),
        )
    )
    classes = _classes(gallery, pictures, class_names, answers)
    return stacked(
        [(classes, _retrieval(gallery, pictures, answers)), (order, relation), (size, _figures(gallery, answers))]
    )


def _classes(
    gallery: list[Picture], pictures: list[Image.Image], class_names: list[str], answers: Answers
) -> Image.Image:
    """Draw every picture, one column per class, with wrong predictions written below their pictures."""
    wrong = [picture.label != int(answer) for picture, answer in zip(gallery, answers.predicted, strict=True)]
    step = STEP + (2 * LINE if any(wrong) else 0)
    title = f'Zero-shot: {len(class_names)} classes such as "{class_names[0]}"'
    note = f"All pictures, one column per class: {len(wrong) - sum(wrong)} of {len(wrong)} right (framed green)"
    image, pen = block(title, note, len(class_names) * STEP, len(ARRANGEMENTS) * step)
    for index, (picture, drawn) in enumerate(zip(gallery, pictures, strict=True)):
        left, top = picture.label * STEP, HEAD + index % len(ARRANGEMENTS) * step
        image.paste(framed(drawn, SMALL, WRONG if wrong[index] else RIGHT), (left, top))
        if wrong[index]:
            for line, words in enumerate(class_names[int(answers.predicted[index])].split(" and ")):
                write(pen, (left, top + SMALL + line * 12), words.split(" ", 1)[1], WRONG, size=10)
    return image


def _retrieval(gallery: list[Picture], pictures: list[Image.Image], answers: Answers) -> Image.Image:
    """Draw captions with the pictures nearest to them; the caption's own has a green frame, and its rank is given."""
    ahead = wrong_items_ahead(answers.similarity, torch.eye(len(gallery), dtype=torch.bool))
    rest = ahead.clone()
    rest[list(SHOWN)] = -1
    queries = [*SHOWN, int(rest.argmax())]
    note = f"{SHOWN_RULE}; first in {int((ahead == 0).sum())} of {len(gallery)}"
    image, pen = block("Text to image: the five nearest of all pictures", note, HALF, len(queries) * TINY_STEP)
    for row, index in enumerate(queries):
        top = HEAD + row * TINY_STEP
        for column, found in enumerate(answers.similarity[index].topk(BEST).indices.tolist()):
            color = RIGHT if found == index else LIGHT
            image.paste(framed(pictures[found], TINY, color), (column * TINY_STEP, top))
        rank = int(ahead[index]) + 1
        write(pen, (BEST * TINY_STEP + 8, top + 8), gallery[index].caption)
        write(pen, (BEST * TINY_STEP + 8, top + 26), f"its own picture: number {rank}", RIGHT if rank == 1 else WRONG)
    return image


def _figures(gallery: list[Picture], answers: Answers) -> Image.Image:
    """Draw the table that the report prints, weak rows in red, with what they mean."""
    rows = figures(gallery, answers)
    ordered = [row for weak in (False, True) for row in rows if row.weak is weak]
    note = "red: less than halfway from chance to 100%"
    image, pen = block("All figures, easy and hard", note, HALF, (len(rows) + 4) * 2 * LINE)
    for number, (name, value, chance) in enumerate([("question", "model", "chance"), *map(_cells, ordered)]):
        color = GRAY if not number else WRONG if ordered[number - 1].weak else INK
        top = HEAD + number * 2 * LINE
        write(pen, (0, top), name, color, size=14)
        write(pen, (HALF - 110, top), value, color, size=14, anchor="ra")
        write(pen, (HALF - 20, top), chance, color, size=14, anchor="ra")
    for number, line in enumerate(textwrap.wrap(in_words(rows), 80)):
        write(pen, (0, HEAD + (len(rows) + 1.5) * 2 * LINE + number * 20), line, size=14)
    return image


def _cells(row: Figure) -> tuple[str, str, str]:
    return row.name, f"{row.value:.1%}", f"{row.chance:.1%}"
