"""What commands print: results on stdout, as text or as JSON lines; notes, failures and progress on stderr."""

import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vladva_clip.interface.addresses import without_addresses
from vladva_clip.storage import whole

if TYPE_CHECKING:
    from vladva_clip.pictures.failures import Failure

OK, SOME_FAILED, WRONG_USE = 0, 1, 2
"""Exit statuses: all done; some items failed and the rest is done; an error to correct."""
_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Of Unicode: characters that reverse what is written behind them, or end that."""
PROGRESS_AFTER = 1  # seconds until a bar appears


def line(text: str) -> None:
    """Print a line of results. Colors are left out unless stdout is a terminal."""
    click.echo(text)


def record(**fields: Any) -> None:
    """Print a result as one line of JSON; file names that are not UTF-8 keep Python's surrogate escapes."""
    click.echo(json.dumps(fields))


def plain(text: Any) -> str:
    """Return a name or the like on one line: what could drive the terminal or turn the line around is escaped."""
    return "".join(ascii(one)[1:-1] if _drives(one) else one for one in str(text))


def _drives(character: str) -> bool:
    return unicodedata.category(character) == "Cc" or unicodedata.bidirectional(character) in _DIRECTIONS


def heading(text: Any) -> str:
    """Return a file's name or the like, on one line, bold on a terminal."""
    return click.style(plain(text), bold=True)


def note(text: str) -> None:
    """Print a remark on stderr."""
    click.echo(click.style(text, dim=True), err=True)


def step(text: str) -> None:
    """Say what begins now, on stderr, if that is a terminal: somebody is waiting."""
    if sys.stderr.isatty():
        note(f"{text} ...")


def error(text: str) -> None:
    """Print why a command ended, on stderr; names in it can't drive the terminal."""
    lines = "\n".join(map(plain, without_addresses(text).split("\n")))
    click.echo(f"{click.style('vladva:', fg='red')} {lines}", err=True)


def finish(
    failures: "Sequence[Failure]",
    total: int,
    what: str = "pictures",
    count: int | None = None,
    file: Path | None = None,
) -> int:
    """List what failed, if anything did, on stderr.

    Args:
        failures: the items that were left out.
        total: how many items there were, with these.
        what: their name, in the plural.
        count: how many failed; None for those listed.
        file: gets them too, a JSON object per line, and nothing if none failed; None for no file.

    Returns:
        The exit status, `OK` or `SOME_FAILED`.

    Raises:
        OSError: the file can't be written.
    """
    if file:
        whole.write(file, b"".join(one.line() for one in failures))
    if not failures:
        return OK
    count = len(failures) if count is None else count
    error(f"{count} of {total} {what} failed:")
    for one in failures:
        click.echo(f"  {plain(one.name)}: {plain(one.reason)}", err=True)
    if count > len(failures):
        click.echo(f"  ... and {count - len(failures)} more", err=True)
    return SOME_FAILED


def progress(total: int | None, unit: str, beside_results: bool = False, done: int = 0) -> Any:
    """Return a tqdm bar on stderr, if that is a terminal and the work takes more than a second.

    Args:
        total: number of items; None if nobody knows yet.
        unit: their name, in the singular.
        done: how many are done before; they don't count for the rate.
        beside_results: results are printed meanwhile; where both go to the terminal, they are progress enough.
    """
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or (beside_results and sys.stdout.isatty())
    return tqdm(
        total=total, initial=done, unit=f" {unit}", delay=PROGRESS_AFTER, disable=hidden, file=sys.stderr, leave=False
    )
