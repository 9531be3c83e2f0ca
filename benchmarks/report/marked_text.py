"""A part of a document that a command writes, between two marks; what stands around it is people's."""

from pathlib import Path

from vladva_benchmarks import files
from vladva_clip.storage.plain_files import read_text


def check(document: Path, start: str, end: str) -> None:
    """Refuse, before anything is computed, a document that `write` would refuse; one that isn't there passes.

    Raises:
        ValueError: a document without both marks, a place that can't be written.
    """
    files.check_file(document)
    if document.is_file():
        _parts(read_text(document), document, start, end)


def write(document: Path, start: str, end: str, text: str, blank: str = "") -> None:
    """Put a text between the marks of a document.

    Args:
        document: the file.
        start, end: the marks, lines of their own.
        text: what comes between them.
        blank: the document where there is none yet, with both marks.

    Raises:
        ValueError: a document without both marks, a place that can't be written.
    """
    before, after = _parts(read_text(document) if document.is_file() else blank, document, start, end)
    files.write(document, f"{before}{start}\n{text}\n{end}{after}".encode())


def _parts(old: str, document: Path, start: str, end: str) -> tuple[str, str]:
    """What stands before and behind the marks, each of which must be there once, or people's text would be lost."""
    if old.count(start) != 1 or old.count(end) != 1 or old.index(start) > old.index(end):
        raise ValueError(f"{document} lacks the marks {start} and {end}, each once; put them where the table belongs")
    return old.split(start)[0], old.split(end)[1]
