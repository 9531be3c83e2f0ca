"""A contact sheet of the drawn world: many scenes of a style, and one family with what sets each member apart.

    vladva-benchmark world-sheet --style varied --output docs/images/world_varied.png

Below a member stands a short caption that is true of it and false of the family's first scene; below the first scene
stands one of its own.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.ImageDraw import ImageDraw

from vladva_benchmarks import files
from vladva_clip.interface.arguments import user_path
from vladva_clip.pictures.drawing import LINE, block, stacked, wrapped, write
from vladva_clip.scenes import STYLES, VARIED_MEMBERS, Scene, facts, family, family_size, scenes, short_sayings
from vladva_clip.storage import whole

SIDE, GAP, COLUMNS = 96, 6, 12  # pixels: a scene's place, between places; scenes in a row
ROWS = 6
MEMBER = 150  # pixels: the place of a family's member
TRIES = 40  # families to search for one whose captions tell every member from the first
SPLIT = "train"


def sheet(style: str, rows: int = ROWS) -> Image.Image:
    """Return the sheet of a style: `rows` x 12 scenes, one of each family, above the eight members of one family."""
    size = family_size(style)
    many = [scenes(SPLIT, number * size, 1, style)[0] for number in range(rows * COLUMNS)]
    blocks = [[_grid(style, many)]]
    return stacked(blocks + [[_members(style, *_told_apart(style))]] if size == len(VARIED_MEMBERS) else blocks)


def _grid(style: str, drawn: Sequence[Scene]) -> Image.Image:
    step, rows = SIDE + GAP, -(-len(drawn) // COLUMNS)
    picture, _ = block(f"style {style}", f"{len(drawn)} scenes", COLUMNS * step, rows * step)
    top = picture.height - rows * step
    for number, one in enumerate(drawn):
        _paste(picture, one, number % COLUMNS * step, top + number // COLUMNS * step, SIDE)
    return picture


def _members(style: str, members: Sequence[Scene], captions: Sequence[str]) -> Image.Image:
    """The members of a family side by side, each with its caption."""
    step = MEMBER + GAP
    picture, pen = block("one family", "each differs from the first", len(members) * step, MEMBER + 6 * LINE)
    top = picture.height - MEMBER - 6 * LINE
    for number, (member, caption) in enumerate(zip(members, captions, strict=True)):
        _paste(picture, member, number * step, top, MEMBER)
        _lines(pen, VARIED_MEMBERS[number], caption, (number * step, top + MEMBER + 4))
    return picture


def _lines(pen: ImageDraw, title: str, caption: str, place: tuple[int, int]) -> None:
    write(pen, place, title)
    for row, line in enumerate(wrapped(caption, MEMBER, most=4), start=1):
        write(pen, (place[0], place[1] + row * LINE), line)


def _paste(picture: Image.Image, drawn: Scene, left: int, top: int, side: int) -> None:
    """Draw a scene into a place, in the middle and as wide or as high as it allows."""
    small = drawn.draw(side)
    small.thumbnail((side, side))
    picture.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))


def _told_apart(style: str) -> tuple[list[Scene], list[str]]:
    """The first family in which a caption of each member is false of the first one, and these captions."""
    for number in range(TRIES):
        members = family(SPLIT, number, style)
        captions = [_telling(member, members[0]) for member in members]
        if all(captions[1:]):
            return members, [short_sayings(members[0])[0].text, *captions[1:]]
    raise ValueError(
        f"no captions tell all members apart in the first {TRIES} families of style {style!r}: raise TRIES"
    )


def _telling(member: Scene, first: Scene) -> str | None:
    """A caption of a member that is false of the first one."""
    known = facts(first)
    return next((saying.text for saying in short_sayings(member) if not saying.claims <= known), None)


def write_sheet(style: str, path: Path, rows: int = ROWS) -> None:
    """Write the sheet as a PNG of 256 colors, whole or not at all; small objects keep their colors.

    Raises:
        OSError: it can't be written.
    """
    small = sheet(style, rows).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=5, dither=Image.Dither.NONE)
    with whole.file(path) as new:
        small.save(new, "PNG", optimize=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "vladva-benchmark world-sheet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--style", choices=STYLES, default="varied", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of scenes (default: %(default)s)")
    parser.add_argument("--output", type=user_path, required=True, help="PNG file")
    options = parser.parse_args(arguments)
    files.check_file(options.output)
    write_sheet(options.style, options.output, options.rows)
    print(f"sheet: {options.output}")
    return 0
