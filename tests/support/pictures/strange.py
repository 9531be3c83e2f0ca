"""Pictures that no stranger's file may get away with: EPS under another name, and headers that promise too much."""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import EpsImagePlugin

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 40 40
%%EndComments
newpath 0 0 moveto 40 40 lineto stroke
showpage
%%EOF
"""


@contextlib.contextmanager
def ghostscript(folder: Path) -> Iterator[Path]:
    """A `gs` in front of all others, which draws nothing and leaves the mark that is yielded."""
    mark, program = folder / "gs-was-started", folder / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(program.parent), prepend=":")
        patch.setattr(EpsImagePlugin, "gs_binary", None)  # PIL looks for it once
        yield mark


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(side: int, tile: int, data: bytes) -> bytes:
    """A gray TIFF of side x side pixels in one tile of tile x tile, compressed by zlib into `data`."""
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 0, 325: len(data)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data
