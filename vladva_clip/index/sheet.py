"""A contact sheet of a ranking: the query, and each picture found with its rank, cosine and file name."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from vladva_clip.index.search import Hit
from vladva_clip.pictures.drawing import (
    GRAY,
    INK,
    LIGHT,
    LINE,
    MARGIN,
    PAPER,
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
LABEL = 2 * LINE + 8  # pixels below a picture
QUERY = 232  # pixels: the place of a query's picture, left of the others
TITLE = 20  # pixels: size of the title
MOST = 100  # pictures drawn


def draw_sheet(query: str | Path, hits: Sequence[Hit], path: Path) -> list[Failure]:
    """Write a ranking as a PNG, whole or not at all; its "Description" has the same as text.

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
    sheet = _sheet(query, hits[:MOST], failures)
    description = PngInfo()
    description.add_text("Description", _described(query, hits))
    small = sheet.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    with whole.file(path) as new:
        small.save(new, "PNG", optimize=True, pnginfo=description)
    return failures


def _sheet(query: str | Path, hits: Sequence[Hit], failures: list[Failure]) -> Image.Image:
    left = MARGIN + (QUERY + 2 * GAP if isinstance(query, Path) else 0)
    columns = min(COLUMNS, max(3, len(hits)))
    width = left + columns * (BOX + GAP) - GAP + MARGIN
    title = f"Pictures like {query.name}" if isinstance(query, Path) else query
    lines = wrapped(title, width - 2 * MARGIN, TITLE)
    top = MARGIN + len(lines) * (TITLE + 6) + LINE + 16
    rows = -(-len(hits) // columns)
    height = max(rows * (BOX + LABEL + GAP) - GAP, QUERY + LABEL if isinstance(query, Path) else 0)
    sheet = Image.new("RGB", (width, top + height + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        write(pen, (MARGIN, MARGIN + number * (TITLE + 6)), line, size=TITLE)
    write(pen, (MARGIN, top - LINE - 12), f"The nearest {len(hits)}, best first, with their cosine", GRAY)
    if isinstance(query, Path):
        _place(sheet, (MARGIN, top), QUERY, query, INK, failures)
        write(pen, (MARGIN, top + QUERY + 6), "query", INK, size=14)
        write(pen, (MARGIN, top + QUERY + 6 + LINE), shortened(query.name, QUERY), GRAY)
    for number, hit in enumerate(hits):
        corner = (left + number % columns * (BOX + GAP), top + number // columns * (BOX + LABEL + GAP))
        _hit(sheet, pen, corner, hit, failures)
    return sheet


def _hit(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, corner: tuple[int, int], hit: Hit, failures: list[Failure]
) -> None:
    x, y = corner
    if hit.kind == "image":
        _place(sheet, corner, BOX, Path(hit.name), LIGHT, failures)
    else:
        pen.rectangle((x, y, x + BOX - 1, y + BOX - 1), outline=LIGHT)
        _write_inside(pen, corner, BOX, hit.name, INK)
    write(pen, (x, y + BOX + 6), str(hit.rank), size=14)
    write(pen, (x + BOX, y + BOX + 6), f"{hit.score:.3f}", size=14, anchor="ra")
    if hit.kind == "image":
        write(pen, (x, y + BOX + 6 + LINE), shortened(Path(hit.name).name, BOX), GRAY)


def _place(
    sheet: Image.Image, corner: tuple[int, int], side: int, path: Path, color: tuple, failures: list[Failure]
) -> None:
    """Draw a picture in the middle of a square, or the reason why it can't be read."""
    x, y = corner
    pen = ImageDraw.Draw(sheet)
    try:
        thumb = fitted(open_file(path), side - 2, side - 2)
    except (OSError, ValueError) as error:
        failures.append(failed(path, error))
        pen.rectangle((x, y, x + side - 1, y + side - 1), outline=LIGHT)
        _write_inside(pen, corner, side, failures[-1].reason, WRONG)
        return
    at = (x + (side - thumb.width) // 2, y + side - 1 - thumb.height)
    sheet.paste(thumb, at)
    pen.rectangle((at[0] - 1, at[1] - 1, at[0] + thumb.width, at[1] + thumb.height), outline=color)


def _write_inside(pen: ImageDraw.ImageDraw, corner: tuple[int, int], side: int, text: str, color: tuple) -> None:
    for number, line in enumerate(wrapped(text, side - 20, most=(side - 20) // LINE)):
        write(pen, (corner[0] + 10, corner[1] + 10 + number * LINE), line, color)


def _described(query: str | Path, hits: Sequence[Hit]) -> str:
    lines = [f"query: {query}", *(f"{hit.rank}  {hit.score:.4f}  {hit.name}" for hit in hits)]
    return "\n".join(_one_line(line) for line in lines)


def _one_line(text: str) -> str:
    """Escape line breaks and stray bytes of file names, which a PNG's text can't hold."""
    text = "".join(one.encode("unicode_escape").decode() if ord(one) < 32 else one for one in text)
    return text.encode("utf-8", "backslashreplace").decode()
