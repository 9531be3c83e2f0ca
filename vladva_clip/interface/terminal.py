"""Printing to any terminal, whatever its encoding."""

import io
import sys


def take_any_text() -> None:
    """Make stdout and stderr accept every text.

    Characters that their encoding lacks become an escape such as `\\udce9`: stray bytes in file names, and under
    `LANG=C` everything beyond ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
