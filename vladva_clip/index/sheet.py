"""A contact sheet of a ranking: the query, and each picture found with its rank, cosine and file name."""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngInfo

from vladva_clip.index.search import Hit
from vladva_clip.pictures.drawing import (
    GRAY,
    INK,
    LIGHT,
    LINE,
    MARGIN,
    PAPER,
    RGB,
    WRONG,
    fitted,
    shortened,
    wrapped,
    write,
)
from vladva_clip.pictures.failures import Failure, failed
from vladva_clip.pictures.files import open_file
from vladva_clip.storage import whole

BOX, GAP, COLUMNS = 184, 16, 5  # pixels: a picture's place, between places; places in a row
QUERY = 232  # pixels: the place of a query's picture, left of the others
BELOW = 2 * LINE + 10  # pixels below a picture, for two lines
TITLE, TITLE_LINE = 20, 26  # pixels: size of the title, from one of its lines to the next
MOST = 100  # pictures drawn
_BEGINNING = 4096  # bytes of a PNG, with its palette
_DESCRIPTION = re.compile(rb"(?:tEXt|iTXt)Description\0+query: ")


def draw_sheet(query: str | Path, hits: Sequence[Hit], path: Path) -> list[Failure]:
    """Write a ranking as a PNG, whole or not at all; its "Description" has the query and all hits as text.

    Args:
        query: the text, or the path of the picture, that was searched for.
        hits: the ranking, best first; the first `MOST` are drawn. A hit of kind "text" is drawn as its text.
        path: the PNG's place; a file that is there is replaced.

    Returns:
        The pictures that can't be read any more, with the reason; their places are empty.

    Raises:
        OSError: it can't be written.
    """
    failures: list[Failure] = []
    sheet = _sheet(query, hits, failures)
    small = sheet.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)  # a third of the bytes
    description = PngInfo()
    description.add_text("Description", _described(query, hits))
    with whole.file(path) as new:
        small.save(new, "PNG", optimize=True, pnginfo=description)
    return failures


def is_sheet(path: Path) -> bool:
    """Whether a file is a contact sheet of ours, by the text that `draw_sheet` puts in front of a PNG's pixels."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    return beginning.startswith(b"\x89PNG") and _DESCRIPTION.search(beginning) is not None


def _sheet(query: str | Path, hits: Sequence[Hit], failures: list[Failure]) -> Image.Image:
    """Return the title above the query's picture, if it is one, and the pictures found."""
    parts = [_query(query, failures)] if isinstance(query, Path) else []
    parts.append(_found(hits[:MOST], failures))
    width = sum(part.width for part in parts) + 2 * GAP * (len(parts) - 1)
    parts.insert(0, _head(query, len(hits), width))
    sheet = Image.new("RGB", (width + 2 * MARGIN, sum(_heights(parts)) + 2 * MARGIN), PAPER)
    sheet.paste(parts[0], (MARGIN, MARGIN))
    left = MARGIN
    for part in parts[1:]:
        sheet.paste(part, (left, MARGIN + parts[0].height))
        left += part.width + 2 * GAP
    return sheet


def _heights(parts: Sequence[Image.Image]) -> tuple[int, int]:
    return parts[0].height, max(part.height for part in parts[1:])


def _head(query: str | Path, count: int, width: int) -> Image.Image:
    title = wrapped(f"Pictures like {query.name}" if isinstance(query, Path) else query, width, TITLE)
    drawn = f"The nearest {count}" if count <= MOST else f"{count} found, the nearest {MOST} drawn"
    image = Image.new("RGB", (width, len(title) * TITLE_LINE + LINE + 14), PAPER)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(title):
        write(pen, (0, number * TITLE_LINE), line, size=TITLE)
    write(pen, (0, len(title) * TITLE_LINE + 2), f"{drawn}, best first, with rank and cosine", GRAY)
    return image


def _query(path: Path, failures: list[Failure]) -> Image.Image:
    thumb = _thumbnail(path, QUERY, INK, failures)
    image = Image.new("RGB", (QUERY, thumb.height + BELOW), PAPER)
    image.paste(thumb, (0, 0))
    _write_below(image, thumb.height, ("query", ""), path.name)
    return image


def _found(hits: Sequence[Hit], failures: list[Failure]) -> Image.Image:
    columns = min(COLUMNS, max(3, len(hits)))
    places = [(number % columns * (BOX + GAP), number // columns * (BOX + BELOW + GAP)) for number in range(len(hits))]
    height = places[-1][1] + BOX + BELOW if places else 1
    image = Image.new("RGB", (columns * (BOX + GAP) - GAP, height), PAPER)
    for place, hit in zip(places, hits, strict=True):
        image.paste(_hit(hit, failures), place)
    return image


def _hit(hit: Hit, failures: list[Failure]) -> Image.Image:
    is_picture = hit.kind == "image"
    thumb = _thumbnail(Path(hit.name), BOX, LIGHT, failures) if is_picture else _framed_text(hit.name, BOX, INK)
    image = Image.new("RGB", (BOX, BOX + BELOW), PAPER)
    image.paste(thumb, ((BOX - thumb.width) // 2, BOX - thumb.height))
    _write_below(image, BOX, (str(hit.rank), f"{hit.score:.3f}"), Path(hit.name).name if is_picture else "text")
    return image


def _thumbnail(path: Path, side: int, color: RGB, failures: list[Failure]) -> Image.Image:
    """Return a picture with a thin frame, at most `side` pixels wide and high; or the reason why it can't be read."""
    try:
        thumb = fitted(open_file(path), side - 2, side - 2)
    except (OSError, ValueError) as error:
        failures.append(failed(path, error))
        return _framed_text(failures[-1].reason, side, WRONG)
    return ImageOps.expand(thumb, 1, color)


def _framed_text(text: str, side: int, color: RGB) -> Image.Image:
    image = ImageOps.expand(Image.new("RGB", (side - 2, side - 2), PAPER), 1, LIGHT)
    for number, line in enumerate(wrapped(text, side - 20, most=(side - 20) // LINE)):
        write(ImageDraw.Draw(image), (10, 10 + number * LINE), line, color)
    return image


def _write_below(image: Image.Image, top: int, ends: tuple[str, str], name: str) -> None:
    pen = ImageDraw.Draw(image)
    write(pen, (0, top + 5), ends[0], size=14)
    write(pen, (image.width, top + 5), ends[1], size=14, anchor="ra")
    write(pen, (0, top + 8 + LINE), shortened(name, image.width), GRAY)


def _described(query: str | Path, hits: Sequence[Hit]) -> str:
    lines = [f"query: {query}", *(f"{hit.rank}  {hit.score:.4f}  {hit.name}" for hit in hits)]
    return "\n".join(map(_one_line, lines))


def _one_line(text: str) -> str:
    """Escape control characters, and the stray bytes of file names that are not UTF-8."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
