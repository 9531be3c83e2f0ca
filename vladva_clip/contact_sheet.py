"""A picture of what a model said about a gallery: classes, retrieval, word order."""

from PIL import Image, ImageDraw, ImageFont

from vladva_clip.gallery import Answers, Picture
from vladva_clip.pictures import open_file

CELL, MARGIN, LINE, COLUMNS = 132, 12, 17, 8  # pixels, pixels, pixels, pictures
RIGHT, WRONG, INK, PAPER = (26, 127, 55), (190, 40, 40), (30, 30, 30), (255, 255, 255)


def contact_sheet(gallery: list[Picture], class_names: list[str], answers: Answers) -> Image.Image:
    """Draw three blocks: every picture with its predicted class, queries with their best five, word-order bars.

    Returns:
        An RGB image about 1150 pixels wide; green is right, red is wrong.
    """
    thumbs = [open_file(picture.path).resize((CELL, CELL)) for picture in gallery]
    blocks = [
        _classes(gallery, thumbs, class_names, answers),
        _retrieval(gallery, thumbs, answers),
        _word_order(gallery, thumbs, answers),
    ]
    width = max(block.width for block in blocks) + 2 * MARGIN
    sheet = Image.new("RGB", (width, sum(block.height + MARGIN for block in blocks) + MARGIN), PAPER)
    top = MARGIN
    for block in blocks:
        sheet.paste(block, (MARGIN, top))
        top += block.height + MARGIN
    return sheet


def _block(title: str, width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height + 2 * LINE), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((0, 0), title, INK, ImageFont.load_default(15))
    return image, pen


def _framed(thumb: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    framed = thumb.copy()
    ImageDraw.Draw(framed).rectangle((0, 0, CELL - 1, CELL - 1), outline=color, width=4)
    return framed


def _text(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, color: tuple[int, int, int]) -> None:
    pen.text(place, text, color, ImageFont.load_default(12))


def _classes(gallery, thumbs, class_names, answers) -> Image.Image:
    rows = -(-len(gallery) // COLUMNS)
    step = CELL + 2 * LINE + 6
    title = "Zero-shot classification: the predicted class, green where right"
    image, pen = _block(title, COLUMNS * (CELL + 8), rows * step)
    for index, (picture, thumb) in enumerate(zip(gallery, thumbs, strict=True)):
        row, column = divmod(index, COLUMNS)
        left, top = column * (CELL + 8), 2 * LINE + row * step
        predicted = int(answers.predicted[index])
        color = RIGHT if predicted == picture.label else WRONG
        image.paste(_framed(thumb, color), (left, top))
        for line, words in enumerate(class_names[predicted].split(" and ")):
            _text(pen, (left, top + CELL + 1 + line * LINE), words, color)
    return image


def _retrieval(gallery, thumbs, answers, queries: int = 4, best: int = 5) -> Image.Image:
    step = CELL + LINE + 8
    title = "Text-to-image retrieval: the five best pictures of all, the caption's own framed green"
    image, pen = _block(title, best * (CELL + 8), queries * step)
    for row, index in enumerate(range(0, queries * 7, 7)):
        top = 2 * LINE + row * step
        _text(pen, (0, top), gallery[index].caption, INK)
        for column, found in enumerate(answers.similarity[index].topk(best).indices.tolist()):
            color = RIGHT if found == index else (200, 200, 200)
            image.paste(_framed(thumbs[found], color), (column * (CELL + 8), top + LINE))
    return image


def _word_order(gallery, thumbs, answers, pictures: int = 4) -> Image.Image:
    step, bars = CELL + 8, 260
    title = "Word order: the true caption (first) against its swaps; green where it scores above all of them"
    image, pen = _block(title, CELL + bars + 560, pictures * step)
    for row, index in enumerate(range(0, pictures * 6, 6)):
        top, scores = 2 * LINE + row * step, answers.order[index]
        color = RIGHT if scores[0] > scores[1:].max() else WRONG
        image.paste(_framed(thumbs[index], color), (0, top))
        low, span = float(scores.min()), max(float(scores.max() - scores.min()), 1e-6)
        for line, text in enumerate((gallery[index].caption, *gallery[index].swaps)):
            y, length = top + 14 + line * 28, 20 + int((bars - 20) * (float(scores[line]) - low) / span)
            pen.rectangle((CELL + 14, y, CELL + 14 + length, y + 14), color if line == 0 else (160, 160, 160))
            _text(pen, (CELL + bars + 24, y), f"{float(scores[line]):.4f}  {text}", INK)
    return image
