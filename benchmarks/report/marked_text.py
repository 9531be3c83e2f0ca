"""Writes a part of a document between two marks; the rest of the document is written by hand."""

from pathlib import Path

from vladva_benchmarks import files
from vladva_clip.storage.plain_files import read_text


def check(document: Path, start: str, end: str) -> None:
    """Refuse, before anything is computed, a document that `write` would refuse. A missing document passes.

    Raises:
        ValueError: a document without both marks, a path that can't be written.
    """
    files.check_file(document)
    if document.is_file():
        _parts(read_text(document), document, start, end)


def write(document: Path, start: str, end: str, text: str, blank: str = "") -> None:
    """Put a text between the marks of a document.

    Args:
        document: the file.
        start, end: the marks, on separate lines.
        text: the text to put between them.
        blank: the initial contents of a missing document, with both marks.

    Raises:
        ValueError: a document without both marks, a path that can't be written.
    """
    before, after = _parts(read_text(document) if document.is_file() else blank, document, start, end)
    files.write(document, f"{before}{start}\n{text}\n{end}{after}".encode())


def _parts(old: str, document: Path, start: str, end: str) -> tuple[str, str]:
    """Return the text before and after the marks. Each must occur once, or hand-written text would be lost."""
    if old.count(start) != 1 or old.count(end) != 1 or old.index(start) > old.index(end):
        raise ValueError(
            f"{document} lacks the marks {start} and {end}, expected each exactly once; put them where the table goes"
        )
    return old.split(start)[0], old.split(end)[1]
