"""What a job was asked for, and the collections that it names, which any process can open."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vladva_clip.bulk import catalog
from vladva_clip.bulk.catalog import Catalog
from vladva_clip.bulk.collections import Selected, Texts, is_table, open_or_miss
from vladva_clip.bulk.decoding import Pictures
from vladva_clip.pictures.failures import Failure
from vladva_clip.pictures.listing import stream_pictures
from vladva_clip.storage import json_files, whole

FILE = "request.json"
MISSED = "missed.json"  # words that name nothing, folders that can't be read
SELECTED = "selected.npy"  # numbers of the catalog's files that are embedded; all of them without this file


@dataclass(frozen=True)
class Request:
    """What is to be embedded.

    words: pictures, folders, globs, shards and tables. texts: texts. directory: where relative paths start. extends:
    size and time of the index of which only what it lacks is embedded, "" for none.
    """

    words: list[str]
    texts: list[str]
    directory: str
    extends: str = ""

    @property
    def files(self) -> list[str]:
        """The words that name picture files."""
        return [word for word in self.words if not is_table(word)]

    @property
    def tables(self) -> list[str]:
        """The words that name shards and tables."""
        return [word for word in self.words if is_table(word)]


def write(folder: Path, request: Request, advance: Callable[[int], Any]) -> None:
    """Keep a request in a job's folder and list its picture files, unless that is done.

    Args:
        folder: the job's.
        request: what is asked for.
        advance: called with the number of files found since the last call.

    Raises:
        ValueError: the folder is of another request.
    """
    path = folder / FILE
    if not path.exists():
        whole.write(path, json.dumps(asdict(request)).encode())
    elif (before := read(folder)) != request:
        raise ValueError(
            f"{folder} holds what an interrupted run of another request has done (of {' '.join(before.words)}, in "
            f"{before.directory}): run that one again, or remove the folder"
        )
    if request.files and not (folder / MISSED).exists():  # which is written last
        _list(folder, request.files, advance)


def read(folder: Path) -> Request:
    """Return the request of a job's folder.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = folder / FILE
    try:
        return Request(**json_files.parse(path.read_bytes(), json_files.RECORDS))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be read as a request ({error}): remove {folder} to begin again") from error


def _list(folder: Path, words: Sequence[str], advance: Callable[[int], Any]) -> None:
    missed: list[Failure] = []
    catalog.write(folder / catalog.FILE, stream_pictures(words, missed), advance)
    plain = [[one.name, one.reason] for one in dict.fromkeys(missed)]
    whole.write(folder / MISSED, json.dumps(plain).encode())


def missed(folder: Path) -> list[Failure]:
    """Return the words that named nothing, and the folders that could not be read."""
    path = folder / MISSED
    return [Failure(*one) for one in json_files.parse(path.read_bytes(), json_files.RECORDS)] if path.exists() else []


def damaged(opened: Sequence) -> list[Failure]:
    """Return what is lost before a collection's items: tables that can't be opened, ends of shards."""
    return [failure for one in opened for failure in getattr(one, "damaged", ())]


def collections(folder: Path) -> list:
    """Open what a job's folder lists: the picture files, then each table, then the texts.

    Raises:
        ExtraError: a package is missing that reads a table.
        ValueError: the folder is damaged.
    """
    request = read(folder)
    tables = [open_or_miss(word, request.directory) for word in request.tables]
    chosen = [_chosen(table, selected(folder, number)) for number, table in enumerate(tables)]
    return [*_files(folder, request), *chosen, Texts(request.texts)]


def selected(folder: Path, table: int) -> Path:
    """Return where the numbers of a table's records are that are embedded; all of them without this file."""
    return folder / f"selected-{table}.npy"


def _chosen(pictures: Pictures, place: Path) -> Pictures:
    return Selected(pictures, np.load(place)) if place.exists() else pictures


def _files(folder: Path, request: Request) -> list:
    if not request.files:
        return []
    return [_chosen(Catalog(folder / catalog.FILE, request.directory), folder / SELECTED)]
