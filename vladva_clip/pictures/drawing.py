"""Drawing tools for contact sheets: colors, fonts, titled blocks, framed pictures."""

import bisect
import functools
import unicodedata
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

_DASHES = {ord(one): "-" for one in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"}


def block(title: str, note: str, width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty block, `HEAD + height` pixels high, with a title and a note, and a pen to draw on it."""
    image = Image.new("RGB", (width, HEAD + height), PAPER)
    pen = ImageDraw.Draw(image)
    write(pen, (0, 0), title, size=16)
    write(pen, (0, LINE + 4), note, GRAY)
    return image, pen


def write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, color: RGB = INK, **style: object) -> None:
    """Write a line; style: `size` in pixels (default 12), and Pillow's `anchor` (default top left)."""
    pen.text(place, drawable(text), color, font(style.get("size", 12)), anchor=style.get("anchor", "la"))


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, the same on every machine; it has ASCII and a few signs."""
    return ImageFont.load_default(size)


def drawable(text: str) -> str:
    """Return a text with accents removed and with escapes such as `\\u732b` for all else that the font lacks."""
    if text.isascii() and text.isprintable():
        return text
    plain = unicodedata.normalize("NFKD", text.translate(_DASHES))
    kept = (one for one in plain if not unicodedata.combining(one))
    return "".join(one if _is_drawn(one) else one.encode("unicode_escape").decode() for one in kept)


@functools.cache
def _is_drawn(sign: str) -> bool:
    if not sign.isprintable():
        return False
    return bytes(font(12).getmask(sign)) != bytes(font(12).getmask("\ue000"))  # a private sign: the font's empty box


def width_of(text: str, size: int) -> float:
    """Return the width of a line in pixels."""
    return font(size).getlength(drawable(text))


def shortened(text: str, width: int, size: int = 12) -> str:
    """Return a line that fits into `width` pixels: what is too much is replaced by dots in its middle."""
    text = drawable(text)
    if width_of(text, size) <= width:
        return text
    kept = bisect.bisect_right(range(1, len(text)), width, key=lambda kept: width_of(_without_middle(text, kept), size))
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"


def wrapped(text: str, width: int, size: int = 12, most: int = 3) -> list[str]:
    """Return at most `most` lines that fit into `width` pixels; words too long for a line are shortened."""
    lines: list[str] = []
    for word in map(drawable, text.split()):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, width, size))
        if len(lines) > most:
            return [*lines[: most - 1], shortened(f"{lines[most - 1]} ...", width, size)]
    return lines


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return a thumbnail of the same proportions, `width` wide or `height` high, with at least 1 x 1 pixels."""
    factor = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


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
