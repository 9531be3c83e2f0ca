"""Path patterns -> files, in order."""

import codecs
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from vladva_clip.interface import extras

_FOREIGN = {  # first bytes -> what the file is, and what to do; longer ones first
    codecs.BOM_UTF32_LE: ("text in UTF-32", "save it as UTF-8"),
    codecs.BOM_UTF32_BE: ("text in UTF-32", "save it as UTF-8"),
    codecs.BOM_UTF16_LE: ("text in UTF-16", "save it as UTF-8"),
    codecs.BOM_UTF16_BE: ("text in UTF-16", "save it as UTF-8"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "save its table as CSV in UTF-8"),
    b"\x1f\x8b": ("compressed with gzip", "decompress it"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "decompress it"),
    b"PAR1": ("a Parquet file", "name it with parquet:"),
}


def expand_files(pattern: str, suffix: str, spec: str) -> list[Path]:
    """Return the files that a path, a path with braces or a directory names.

    Args:
        pattern: `a.tar`, `/data/{00000..00331}.tar`, `a.tar::b.tar` or a directory: its files with the suffix
            in order of their names, then those of its partitions (`year=2024/`); `~` is the home directory.
        suffix: ".tar", ".parquet".
        spec: the source's spec, for messages.

    Raises:
        ExtraError: braceexpand is not installed.
        ValueError: missing files (states their number and names the first), a file that is named twice, a directory
            without such files.
    """
    extras.require("braceexpand", purpose=spec)
    import braceexpand

    try:
        names = [name for part in pattern.split("::") for name in braceexpand.braceexpand(part)]
    except braceexpand.UnbalancedBracesError as error:
        raise ValueError(f"{spec}: {error}; expected braces such as {{00000..00331}}") from error
    paths = [Path(name).expanduser() for name in names]
    if len(paths) == 1 and paths[0].is_dir():
        return _files_in(paths[0], suffix, spec)
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{spec}: {len(missing)} of {len(paths)} files are missing: {', '.join(missing[:5])}")
    twice = [path for path, times in Counter(path.resolve() for path in paths).items() if times > 1]
    if twice:
        raise ValueError(f"{spec}: {twice[0]} is named twice; name it once, and use data.weights to see it more often")
    return paths


def _files_in(folder: Path, suffix: str, spec: str) -> list[Path]:
    """The folder's files and those of its partitions (`year=2024/`), without hidden ones, which belong to programs."""
    hidden = (".", "_") if suffix == ".parquet" else "."  # as Hadoop and pyarrow define hidden
    found = [path for path in _with_suffix(folder.glob("*"), suffix) if not path.name.startswith(hidden)]
    for partition in sorted(folder.glob("*=*/")):
        found += [path for path in _with_suffix(partition.rglob("*"), suffix) if not path.name.startswith(hidden)]
    if not found:
        below = next((path for path in _with_suffix(folder.rglob("*"), suffix) if path.is_file()), None)
        hint = f"; there are some in {below.parent}: use that folder" if below else ""
        raise ValueError(f"{spec}: {folder} holds no *{suffix} files; expected at least one{hint}")
    return found


def _with_suffix(paths: Iterable[Path], suffix: str) -> list[Path]:
    """Those with a suffix, in any case, sorted."""
    return sorted(path for path in paths if path.suffix.lower() == suffix)


def require_text_file(path: str, spec: str) -> Path:
    """Return the path of one text file.

    Raises:
        ValueError: the file doesn't exist or is empty, or its first bytes show that it is not UTF-8.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise ValueError(f"{spec}: there is no file {found}; expected the path of one file")
    if not found.stat().st_size:
        raise ValueError(f"{spec}: {found} is empty; expected at least one record")
    with found.open("rb") as file:
        start = file.read(4)
    for beginning, (what, advice) in _FOREIGN.items():
        if start.startswith(beginning):
            raise ValueError(f"{spec}: {found} is {what}; expected text in UTF-8: {advice}")
    return found
