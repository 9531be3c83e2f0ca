"""Words of a command line -> picture files: each word is a file, a folder or a glob.

The name decides only within folders, where other files are to be left out. Content decides when a file is read.
"""

import glob
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vladva_clip.pictures.failures import Failure, failed
from vladva_clip.pictures.files import SUFFIXES

_MAGIC, _ANY_DEPTH = "*?[", "**"
_KNOWN = ", ".join(sorted(SUFFIXES))


class Found(NamedTuple):
    """A file that a word names: the word's number, the path as it was named, and the real path."""

    word: int
    path: Path
    real: str


def find_pictures(words: Sequence[str]) -> tuple[list[Path], list[Failure]]:
    """Return the files that words name, each file once, in the order of the words.

    A file is taken as it is named, whatever its suffix. A folder gives the picture files at any depth below it, by
    suffix (`files.SUFFIXES`), sorted; hidden files and folders are skipped, and links to folders are followed. A word
    with `*`, `?` or `[` that names no file is a glob (`**` for any depth): it stands for the files and folders that
    match it, and their files are sorted. `~` is the home directory.

    Returns:
        The paths, and a failure for each word that gives no file and each folder that can't be read.
    """
    failures: list[Failure] = []
    found: dict[str, Path] = {}  # by real path
    for _, path, real in sorted(stream_pictures(words, failures)):
        found.setdefault(real, path)
    return list(found.values()), list(dict.fromkeys(failures))


def stream_pictures(words: Sequence[str], failures: list[Failure]) -> Iterator[Found]:
    """Yield what `find_pictures` finds as it is found: word by word, in no order within one, maybe repeatedly.

    Args:
        words: files, folders and globs.
        failures: gets one for each word that gives no file and each folder that can't be read, maybe repeatedly.
    """
    for number, word in enumerate(words):
        for path, real in _named(word, failures):
            yield Found(number, path, real)


def _named(word: str, failures: list[Failure]) -> Iterator[tuple[Path, str]]:
    """Yield the path and the real path of each file that a word names."""
    try:
        path = Path(word).expanduser()
        if not word:
            raise ValueError("an empty name, expected a file, a folder or a glob")
        os.stat(path)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and any(sign in word for sign in _MAGIC):
            return _or_failure(word, _matching(str(path), failures), "no file matches", failures)
        failures.append(failed(word, error))
        return iter(())
    if not path.is_dir():
        return iter([(path, os.path.realpath(path))])
    return _or_failure(
        word, _pictures(path, failures), f"no files in it with a suffix of pictures ({_KNOWN})", failures
    )


def _or_failure(
    word: str, files: Iterator[tuple[Path, str]], if_none: str, failures: list[Failure]
) -> Iterator[tuple[Path, str]]:
    """Yield what a word names; a word that names no file fails, unless a folder that can't be read is the reason."""
    before, count = len(failures), 0
    for count, found in enumerate(files, start=1):  # noqa: B007 - the count of all
        yield found
    if not count and len(failures) == before:
        failures.append(Failure(word, if_none))


def _matching(pattern: str, failures: list[Failure]) -> Iterator[tuple[Path, str]]:
    """Yield the files that match a glob, and the picture files below folders that match it."""
    for match in _expanded(pattern, failures):
        path = Path(match)
        if not path.is_dir():
            yield path, os.path.realpath(path)
        elif Path(pattern).name != _ANY_DEPTH:  # then its files match by themselves
            yield from _pictures(path, failures)


def _expanded(pattern: str, failures: list[Failure]) -> Iterator[str]:
    """Yield what matches a glob, maybe repeatedly. Python's own `**` goes round in circles where links do."""
    parts = Path(pattern).parts
    if _ANY_DEPTH not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index(_ANY_DEPTH)
    rest = parts[place + 1 :] or ("*",)
    roots = glob.iglob(os.path.join(*parts[:place])) if place else [""]
    for root in filter(os.path.isdir, (root or os.curdir for root in roots)):
        for folder in _folders(Path(root), failures):
            yield from _expanded(os.path.join(glob.escape(str(folder)), *rest), failures)


def _pictures(folder: Path, failures: list[Failure]) -> Iterator[tuple[Path, str]]:
    """Yield the picture files below a folder, in no order."""
    for place in _folders(folder, failures):
        real = os.path.realpath(place)
        for entry in _entries(place, failures):
            path = place / entry.name
            if path.suffix.lower() in SUFFIXES and not _is_folder(entry):
                yield path, os.path.realpath(path) if entry.is_symlink() else os.path.join(real, entry.name)


def _folders(folder: Path, failures: list[Failure]) -> Iterator[Path]:
    """Yield a folder and those below it, none of them hidden.

    Each real folder comes once, so that links make no circles; under its own name if that is below `folder`.
    """
    waiting, seen = deque([folder]), set()
    while waiting:
        place = waiting.popleft()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        before = len(failures)
        below = list(filter(_is_folder, _entries(place, failures)))
        if len(failures) > before:
            continue
        yield place
        for entry in sorted(below, key=lambda entry: entry.name, reverse=True):
            (waiting.append if entry.is_symlink() else waiting.appendleft)(place / entry.name)


def _entries(folder: Path, failures: list[Failure]) -> Iterator[os.DirEntry]:
    """Yield what is in a folder, none of it hidden, one by one: a folder may hold a million files."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        failures.append(failed(folder, error))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that can't be read
        return False
