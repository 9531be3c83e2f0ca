"""The terminal runs in docs/cli.md; `python -m tests.support.console_docs` runs them and writes what they print.

A block of `console` holds commands behind `$ `, each followed by what it prints on stdout and stderr. Commands of ours
run in this process, in a folder with the quick start's pictures.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/cli.md"
PICTURES = {"vladva-search.png": "docs/images/search.png"}  # what a run draws -> its copy beside the page
_BLOCK = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.S | re.M)


def blocks(page: str) -> list[str]:
    """The console blocks of a page: commands with their output."""
    return _BLOCK.findall(page)


def commands(block: str) -> list[str]:
    """The commands of a block."""
    return re.findall(r"^\$ (.*)$", block, re.M)


def said(command: str) -> str:
    """Run a command in the working directory; return what it prints, stdout first."""
    words = shlex.split(command)
    if words[0] != "vladva":
        return subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    from vladva_clip import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cli.main(words[1:])
    return out.getvalue() + err.getvalue()


def run(block: str) -> str:
    """Return a block with what its commands print now."""
    return "".join(f"$ {command}\n{said(command)}" for command in commands(block))


def place(folder: Path) -> None:
    """Draw the quick start's pictures where its command does."""
    from vladva_clip.quickstart.gallery import draw_gallery

    draw_gallery(folder / "vladva-quickstart")


def rewritten(page: str, folder: Path, of: Callable[[str], str] = run) -> str:
    """Return a page with all its blocks run in a folder."""
    place(folder)
    before = os.getcwd()
    try:
        os.chdir(folder)
        return _BLOCK.sub(lambda block: of(block[0]), page)
    finally:
        os.chdir(before)


def main() -> None:
    """Write the page and its pictures anew."""
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(rewritten(PAGE.read_text(), Path(folder)))
        for name, target in PICTURES.items():
            shutil.copy(Path(folder, name), ROOT / target)


if __name__ == "__main__":
    main()
