"""The drawn world in clip_benchmark's WebDataset layout, and its foils: suites that run offline from end to end.

`clip_benchmark eval --dataset wds/scenes_retrieval --dataset_root DATA_ROOT/scenes/retrieval --task zeroshot_retrieval`
reads the same shards. Classification shows one object and asks for its color and shape; retrieval shows whole scenes of
the split "test" with their five short captions. Scenes come in families of four that differ in who is where, or in
who has which color: an encoder that reads a bag of words finds the family, and the right member once in four. The foils
are about the pictures of retrieval.

The suites of the other styles have the same form. Their scenes come in families of eight, their pictures are not always
square, and their captions may be true of further pictures, which count as right (`drawn_truth`).
"""

import hashlib
import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path

from PIL import Image

from vladva_benchmarks.suites import drawn_foils, drawn_truth
from vladva_benchmarks.suites.annotations import read_json, read_lines
from vladva_benchmarks.suites.pictures import Picture
from vladva_benchmarks.suites.suite import Suite
from vladva_benchmarks.suites.tasks import Classification, Retrieval, Task
from vladva_clip.interface import extras
from vladva_clip.scenes import (
    CLASS_TEMPLATES,
    COLORS,
    SHAPES,
    Mention,
    Scene,
    family,
    family_size,
    scenes,
    short_captions,
)
from vladva_clip.storage import disk, whole
from vladva_clip.storage.plain_files import decode

FORMAT = 4
FOLDERS = {"classic": "scenes", "varied": "scenes_varied", "unseen": "scenes_unseen"}
"""Style -> the suite's name and folder."""
ABOUT, CHECKSUMS = "about.json", "sha256"
COUNT = 200
SHARD = 100  # pictures at most
SHARDS = 8  # at least: with fewer shards than workers (clip_benchmark: 4) webdataset finds "no samples" and stops
IMAGE_SIZE = 64  # pixels of the shorter side
CLASSES = [Mention(*pair).phrase for pair in product(COLORS, SHAPES)]
TEMPLATES = [template.format("{c}") for template in CLASS_TEMPLATES]  # with clip_benchmark's hole
CLASSNAMES_FILE, TEMPLATES_FILE = "classnames.txt", "zeroshot_classification_templates.txt"


def export(root: Path, count: int = COUNT, style: str = "classic") -> Path:
    """Draw a suite's data sets into its folder of `root` unless they are there.

    The classic suite has the same bytes on every machine; the others as far as Pillow compresses JPEG the same way.

    Args:
        root: the data root, made if missing.
        count: pictures in each; whole families, if the style is not "classic".
        style: of `vladva_clip.scenes.STYLES`.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds something else, or it can't be written; a family would be cut.
    """
    place, about = root / FOLDERS[style], {"format": FORMAT, "pictures": count, "image_size": IMAGE_SIZE}
    if style != "classic":
        about["style"] = style
        _check_families(count, style)
    if not place.exists():
        _export(place, count, style, about)
    found = read_json(place / ABOUT, dict) if (place / ABOUT).is_file() else {}
    if not isinstance(found.get(CHECKSUMS), dict) or {**found, CHECKSUMS: None} != {**about, CHECKSUMS: None}:
        raise ValueError(f"{place} holds {found!s:.200}, expected {about}: move it away, or name another --data-root")
    if changed := _changed(place, found[CHECKSUMS]):
        raise ValueError(
            f"{place} can't be read (changed or missing files: {', '.join(changed[:8])}): remove it, and run again "
            "to redraw it"
        )
    return place


def read(root: Path, style: str = "classic") -> Iterator[Task]:
    """The data sets of a style: classification, retrieval, and each kind of foils.

    Raises:
        ValueError: files are missing or damaged.
    """
    place = root / FOLDERS[style]
    try:
        yield from _read(root, place, style)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise ValueError(f"{place} can't be read ({error}): remove it, and run again to redraw it") from error


def _check_families(count: int, style: str) -> None:
    if count % (size := family_size(style)):
        raise ValueError(
            f"found {count} pictures for {FOLDERS[style]}; expected whole families of {size}: pass a multiple of "
            f"{size} as --scene-pictures, such as {math.ceil(count / size) * size}"
        )


def _read(root: Path, place: Path, style: str) -> Iterator[Task]:
    pictures, labels = _read_shards(root, place / "classification", ".cls")
    names, templates = (read_lines(place / "classification" / name) for name in (CLASSNAMES_FILE, TEMPLATES_FILE))
    yield Classification(f"{place.name}/classification", pictures, _labels(labels, len(names)), names, templates)
    pictures, texts = _read_shards(root, place / "retrieval", ".txt")
    name, captions = f"{place.name}/retrieval", [text.splitlines() for text in texts]
    if style == "classic":
        yield Retrieval(name, pictures, captions)
    else:
        yield drawn_truth.TrueRetrieval(name, pictures, captions, drawn_truth.read(place / "retrieval", captions))
    yield from drawn_foils.read(place, pictures)


def _labels(texts: Sequence[str], count: int) -> list[int]:
    labels = list(map(int, texts))
    if not all(0 <= label < count for label in labels):
        raise ValueError(f"labels from {min(labels)} to {max(labels)} for {count} classes")
    return labels


def _export(place: Path, count: int, style: str, about: dict[str, int | str]) -> None:
    """Write the folder, whole or not at all; another run may be faster, and its folder stays."""
    try:
        with whole.folder(place, replace=False) as scratch:
            _write(scratch, count, style)
            (scratch / ABOUT).write_text(json.dumps(about | {CHECKSUMS: _checksums(scratch)}) + "\n")
    except OSError as error:
        if not place.is_dir():
            raise ValueError(f"{place} can't be written ({disk.reason(error)}): name another --data-root") from error


def _checksums(place: Path) -> dict[str, str]:
    """The sha256 of each drawn file."""
    return {path.relative_to(place).as_posix(): _sha256(path) for path in sorted(place.rglob("*")) if path.is_file()}


def _changed(place: Path, stated: dict[str, str]) -> list[str]:
    """The files that are missing or changed; other files in the folder belong to the user."""
    return [name for name, sha256 in stated.items() if not (place / name).is_file() or _sha256(place / name) != sha256]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(place: Path, count: int, style: str) -> None:
    extras.require("webdataset", purpose=f"the suite {FOLDERS[style]}", extra="benchmarks")
    drawn = scenes("test", 0, count, style)
    _write_classification(place / "classification", drawn if style == "classic" else _first_scenes(count, style))
    captions = ["\n".join(short_captions(one)) for one in drawn]
    _write_shards(place / "retrieval", [one.draw(IMAGE_SIZE) for one in drawn], "txt", captions)
    (place / "retrieval" / "dataset_type.txt").write_text("retrieval\n")
    if style != "classic":
        drawn_truth.write(place / "retrieval", drawn)
    drawn_foils.write(place, drawn)


def _first_scenes(count: int, style: str) -> list[Scene]:
    """A scene of each family: alone, the first objects of its other scenes would often be the same picture."""
    return [family("test", number, style)[0] for number in range(count)]


def _write_classification(place: Path, drawn: Sequence[Scene]) -> None:
    """The first object of each scene, alone."""
    alone = [replace(one, objects=one.objects[:1]) for one in drawn]
    labels = [CLASSES.index(Mention(*one.objects[0].pair).phrase) for one in alone]
    _write_shards(place, [one.draw(IMAGE_SIZE) for one in alone], "cls", list(map(str, labels)))
    (place / CLASSNAMES_FILE).write_text("\n".join(CLASSES) + "\n")
    (place / TEMPLATES_FILE).write_text("\n".join(TEMPLATES) + "\n")


def _write_shards(place: Path, pictures: Sequence[Image.Image], kind: str, texts: Sequence[str]) -> None:
    from webdataset import TarWriter

    (place / "test").mkdir(parents=True)
    size = min(SHARD, math.ceil(len(pictures) / SHARDS))
    starts = range(0, len(pictures), size)
    for shard, start in enumerate(starts):
        with TarWriter(str(place / "test" / f"{shard}.tar"), mtime=0) as writer:
            for number in range(start, min(start + size, len(pictures))):
                sample = {"__key__": f"{number:06}", "png": _png(pictures[number]), kind: texts[number].encode()}
                writer.write(sample)
    (place / "test" / "nshards.txt").write_text(f"{len(starts)}\n")


def _png(picture: Image.Image) -> bytes:
    data = BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def _read_shards(root: Path, place: Path, kind: str) -> tuple[list[Picture], list[str]]:
    """The location of each picture in the shards, and the text beside it."""
    pictures, texts = [], []
    for shard in range(int(read_lines(place / "test" / "nshards.txt")[0])):
        path = place / "test" / f"{shard}.tar"
        if not path.is_file():
            raise ValueError(f"{path} is missing, or not a file")
        with tarfile.open(path) as archive:
            members = [one for one in archive.getmembers() if one.isfile()]
            texts += [decode(archive.extractfile(one).read()) for one in members if one.name.endswith(kind)]
        folder = path.relative_to(root).as_posix()
        drawn = [one for one in members if one.name.endswith(".png")]
        pictures += [Picture(f"{folder}/{one.name}", path, one.offset_data, one.size) for one in drawn]
    if len(pictures) != len(texts):
        raise ValueError(f"{place} holds {len(pictures)} pictures and {len(texts)} {kind} files")
    return pictures, texts


def _suite(style: str) -> Suite:
    return Suite(FOLDERS[style], partial(read, style=style), {}, in_paper=False, prepare=partial(export, style=style))


SUITE, VARIED_SUITE, UNSEEN_SUITE = map(_suite, FOLDERS)
