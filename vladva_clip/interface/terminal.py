"""What command lines print, on any terminal."""

import io
import sys


def take_any_text() -> None:
    """Let stdout and stderr take every text.

    What their encoding does not have becomes an escape such as `\\udce9`: stray bytes in the name of a file, and
    under `LANG=C` whatever is not ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
