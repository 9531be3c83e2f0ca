"""A part of a document that a command writes, between two marks; what stands around it is people's."""

from pathlib import Path

from vladva_benchmarks import files


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
    old = document.read_text(encoding="utf-8") if document.is_file() else blank
    if start not in old or end not in old:
        raise ValueError(f"{document} lacks the marks {start} and {end}; put them where the table belongs")
    files.write(document, f"{old.split(start)[0]}{start}\n{text}\n{end}{old.split(end)[1]}".encode())
