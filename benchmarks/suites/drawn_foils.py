"""False captions of the drawn scenes: SugarCrepe's seven kinds, and the kinds of `evaluation_foils`.

No training on the classic world draws the latter. Training on the varied world draws all kinds: there every kind asks
about new scenes, and none asks a new question.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vladva_benchmarks.suites.annotations import column, read_json
from vladva_benchmarks.suites.pictures import Picture
from vladva_benchmarks.suites.tasks import Choices
from vladva_clip.scenes import EVALUATION_KINDS, FOIL_KINDS, Scene, evaluation_foils, foils

KINDS = (*FOIL_KINDS, *EVALUATION_KINDS)
FOLDER = "foils"


def trained_foils(scene: Scene) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the kinds of `FOIL_KINDS` in the form of `evaluation_foils`: kind -> (caption, false captions)."""
    return {kind: (caption, (foil,)) for kind, (caption, foil) in foils(scene).items()}


def write(place: Path, drawn: Sequence[Scene]) -> None:
    """Write `foils/KIND.json` into the suite's folder: each scene's picture number, caption, negative captions."""
    (place / FOLDER).mkdir()
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for number, scene in enumerate(drawn):
        for kind, (caption, negatives) in (trained_foils(scene) | evaluation_foils(scene)).items():
            rows[kind].append({"picture": number, "caption": caption, "negative_captions": negatives})
    for kind, found in rows.items():
        _file(place, kind).write_text(json.dumps(found, indent=1) + "\n")


def read(place: Path, pictures: Sequence[Picture]) -> Iterator[Choices]:
    """Read the kinds that the pictures have.

    Args:
        place: the suite's folder.
        pictures: the retrieval task's, in the order by which the files number them.

    Raises:
        ValueError: a file is missing or holds something else.
    """
    for kind in KINDS:
        path = _file(place, kind)
        rows = read_json(path, list)
        numbers = column(rows, "picture", path, int)
        if not all(0 <= number < len(pictures) for number in numbers):
            raise ValueError(f"{path} numbers other pictures than the {len(pictures)} that are there")
        asked, captions = [pictures[number] for number in numbers], column(rows, "caption", path)
        if rows:
            yield Choices(f"{place.name}/{kind}", asked, captions, column(rows, "negative_captions", path, list))


def _file(place: Path, kind: str) -> Path:
    return place / FOLDER / f"{kind}.json"
