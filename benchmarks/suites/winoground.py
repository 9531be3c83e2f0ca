"""Winoground (Thrush et al., arXiv 2204.03162) from the files of its Hub repository.

clip_benchmark's reader runs the repository's script, which `datasets` no longer supports since version 4.
"""

from collections.abc import Iterator
from pathlib import Path

from vladva_benchmarks.suites import layouts
from vladva_benchmarks.suites.annotations import column, read_json_lines
from vladva_benchmarks.suites.layouts import Needed
from vladva_benchmarks.suites.pictures import Picture, require
from vladva_benchmarks.suites.suite import Suite
from vladva_benchmarks.suites.tasks import Quadruples

ANNOTATIONS, IMAGES = "data/examples.jsonl", "data/images"
_DOWNLOAD = (
    "accept the terms on https://huggingface.co/datasets/facebook/winoground, then "
    "hf download facebook/winoground --repo-type dataset --include 'data/*' --local-dir {root}"
)
_UNZIP = _DOWNLOAD + " && unzip {root}/data/images.zip -d {root}/data"
NEEDED = (Needed((ANNOTATIONS,), _DOWNLOAD), Needed((IMAGES,), _UNZIP))


def read(root: Path) -> Iterator[Quadruples]:
    """The 400 quadruples."""
    place = layouts.require(root, "winoground", NEEDED)
    annotations = place / ANNOTATIONS
    rows = read_json_lines(annotations)
    pictures, captions = (list(_pairs(rows, what, annotations)) for what in ("image", "caption"))
    pairs = [tuple(_picture(place, name) for name in names) for names in pictures]
    require([picture for pair in pairs for picture in pair], annotations, layouts.instructions(_UNZIP, place))
    yield Quadruples("winoground", pairs, captions)


def _pairs(rows: list[dict], what: str, path: Path) -> Iterator[tuple[str, str]]:
    return zip(column(rows, f"{what}_0", path), column(rows, f"{what}_1", path), strict=True)


def _picture(place: Path, name: str) -> Picture:
    return Picture(f"winoground/{IMAGES}/{name}.png", place / IMAGES / f"{name}.png")


SUITE = Suite("winoground", read, {"winoground": {"quadruples": 400}})
