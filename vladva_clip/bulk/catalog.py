"""A list of picture files on disk, in order, each once: memory doesn't grow with the number of files.

It is an SQLite database, which sorts on disk, survives a kill, and is read by any process at any row.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from PIL import Image

from vladva_clip.bulk.parts import Row
from vladva_clip.interface.addresses import without_addresses
from vladva_clip.pictures.files import read_file, read_picture
from vladva_clip.pictures.listing import Found
from vladva_clip.storage import plain_files, whole

FILE = "catalog.sqlite"
_EVERY = 1000  # files between two calls of `advance`
# A key is a path whose separators are NUL, so that bytes sort as pathlib sorts paths: by folder, then by name.
_FOUND = "CREATE TABLE found (real BLOB PRIMARY KEY, word INTEGER, key BLOB) WITHOUT ROWID"
_ADD = """INSERT INTO found VALUES (?, ?, ?) ON CONFLICT (real) DO UPDATE
    SET key = min(key, excluded.key) WHERE word = excluded.word"""
_NUMBERED = "CREATE TABLE files (number INTEGER PRIMARY KEY, key BLOB NOT NULL)"
_SORT = "INSERT INTO files (key) SELECT key FROM found ORDER BY word, key"  # numbered from 1


def write(path: Path, files: Iterable[Found], advance: Callable[[int], object]) -> None:
    """Write the catalog of files, whole or not at all.

    Args:
        path: its place.
        files: what `listing.stream_pictures` yields; a file that comes again, under whatever name, counts once.
        advance: called now and then with the number of files since the last call.

    Raises:
        OSError: it can't be written.
    """
    try:
        _write(path, files, advance)
    except sqlite3.OperationalError as error:
        raise OSError(f"{path} can't be written ({error}): make room on that disk and for temporary files") from error


def _write(path: Path, files: Iterable[Found], advance: Callable[[int], object]) -> None:
    with whole.file(path) as new, closing(sqlite3.connect(new, isolation_level=None)) as database:
        for line in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA temp_store = FILE"):
            database.execute(line)  # a half-written catalog is thrown away
        database.execute(_FOUND)
        database.execute("BEGIN")
        database.executemany(_ADD, _counted(files, advance))
        database.execute(_NUMBERED)
        database.execute(_SORT)
        database.execute("COMMIT")
        database.execute("DROP TABLE found")
        database.execute("VACUUM")


def _counted(files: Iterable[Found], advance: Callable[[int], object]) -> Iterator[tuple[bytes, int, bytes]]:
    count = 0
    for count, (word, path, real) in enumerate(files, start=1):
        yield os.fsencode(real), word, _key(path)
        if count % _EVERY == 0:
            advance(_EVERY)
    advance(count % _EVERY)


def _key(path: Path) -> bytes:
    return os.fsencode(path).replace(os.sep.encode(), b"\0")


class Catalog:
    """The files of a catalog; each process that reads it opens it for itself.

    Args:
        path: written by `write`.
        directory: where its relative paths start.

    Raises:
        ValueError: another file.
    """

    def __init__(self, path: Path, directory: str = "") -> None:
        self.path, self.directory = path, directory
        self._opened: tuple[int, sqlite3.Connection] | None = None  # by process: a connection is not shared by a fork
        try:
            self._count = self._connection().execute("SELECT count(*) FROM files").fetchone()[0]
        except sqlite3.Error as error:
            raise ValueError(
                f"{path} can't be read as a catalog ({error}): remove its folder to begin again"
            ) from error

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict:
        return vars(self) | {"_opened": None}

    def name(self, number: int) -> str:
        """Return the path of a file, as it was named; bytes that are not UTF-8 are surrogate escapes.

        Raises:
            IndexError: no such number.
        """
        found = self._connection().execute("SELECT key FROM files WHERE number = ?", (number + 1,)).fetchone()
        if found is None:
            raise IndexError(f"file {number} of {len(self)}")
        return os.fsdecode(found[0].replace(b"\0", os.sep.encode()))

    def place(self, number: int) -> Path:
        """Return where a file is; raises as `name`."""
        return Path(self.directory, self.name(number))

    def row(self, number: int) -> Row:
        """Return a file's path, size and time; with an error if it has vanished or the like."""
        name = self.name(number)
        try:
            status = os.stat(Path(self.directory, name))
        except (OSError, ValueError) as error:
            return Row(name, error=without_addresses(plain_files.said(error)))
        return Row(name, "image", status.st_size, status.st_mtime_ns)

    def open(self, number: int) -> Image.Image:
        """Return the upright RGB picture of a file; raises as `vladva_clip.pictures.files.open_file`."""
        return read_picture(read_file(self.place(number)), self.name(number))

    def close(self) -> None:
        """Close this process's connection."""
        if self._opened and self._opened[0] == os.getpid():
            self._opened[1].close()
        self._opened = None

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None or self._opened[0] != os.getpid():
            address = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"  # no locks: network folders lack them
            self._opened = os.getpid(), sqlite3.connect(address, uri=True, check_same_thread=False)
        return self._opened[1]
