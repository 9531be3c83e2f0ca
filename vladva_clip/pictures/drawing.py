"""Drawing tools for contact sheets: colors, fonts, titled blocks, framed pictures."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

RGB = tuple[int, int, int]
RIGHT, WRONG, INK, GRAY, LIGHT, PAPER = (
    *((26, 127, 55), (200, 40, 40), (30, 30, 30), (110, 110, 110), (215, 215, 215)),
    (255, 255, 255),
)
LINE = 17  # pixels from one line of text to the next
HEAD = 2 * LINE + 12  # pixels for a block's title and the line below it
MARGIN, GAP = 20, 26  # pixels around the sheet, and between blocks


def block(title: str, note: str, width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty block, `HEAD + height` pixels high, with a title and a note, and a pen to draw on it."""
    image = Image.new("RGB", (width, HEAD + height), PAPER)
    pen = ImageDraw.Draw(image)
    write(pen, (0, 0), title, size=16)
    write(pen, (0, LINE + 4), note, GRAY)
    return image, pen


def write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, color: RGB = INK, **style: object) -> None:
    """Write a line; style: `size` in pixels (default 12), and Pillow's `anchor` (default top left)."""
    pen.text(place, text, color, ImageFont.load_default(style.get("size", 12)), anchor=style.get("anchor", "la"))


def framed(picture: Image.Image, width: int, color: RGB) -> Image.Image:
    """Return a square thumbnail with a frame drawn onto it."""
    thumb = picture.resize((width, width))
    ImageDraw.Draw(thumb).rectangle((0, 0, width - 1, width - 1), outline=color, width=3)
    return thumb


def stacked(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Return rows of blocks as one picture, with aligned columns and a margin around everything."""
    lefts = [0]
    for column in zip(*rows, strict=True):
        lefts.append(lefts[-1] + max(one.width for one in column) + GAP)
    heights = [max(one.height for one in row) + GAP for row in rows]
    sheet = Image.new("RGB", (lefts[-1] - GAP + 2 * MARGIN, sum(heights) - GAP + 2 * MARGIN), PAPER)
    for number, row in enumerate(rows):
        for left, one in zip(lefts, row, strict=False):
            sheet.paste(one, (MARGIN + left, MARGIN + sum(heights[:number])))
    return sheet
