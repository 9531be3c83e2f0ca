"""Path patterns -> files, in order."""

from pathlib import Path

import braceexpand


def expand_files(pattern: str, suffix: str, spec: str) -> list[Path]:
    """Return the files that a path, a path with braces or a directory stands for.

    Args:
        pattern: `a.tar`, `/data/{00000..00331}.tar`, `a.tar::b.tar` or a directory, whose files of the suffix are
            taken in order of their names; `~` is the home directory.
        suffix: ".tar", ".parquet".
        spec: the source's spec, for messages.

    Raises:
        ValueError: a file that is not there (all missing ones are counted and the first are named), a directory
            without such files.
    """
    try:
        names = [name for part in pattern.split("::") for name in braceexpand.braceexpand(part)]
    except braceexpand.UnbalancedBracesError as error:
        raise ValueError(f"{spec}: {error}; expected braces such as {{00000..00331}}") from error
    paths = [Path(name).expanduser() for name in names]
    if len(paths) == 1 and paths[0].is_dir():
        found = sorted(paths[0].glob(f"*{suffix}"))
        if not found:
            raise ValueError(f"{spec}: {paths[0]} holds no *{suffix} files; expected at least one")
        return found
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{spec}: {len(missing)} of {len(paths)} files are missing: {', '.join(missing[:5])}")
    return paths


def require_file(path: str, spec: str) -> Path:
    """Return the path of one file.

    Raises:
        ValueError: there is no such file, or nothing in it.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise ValueError(f"{spec}: there is no file {found}; expected the path of one file")
    if not found.stat().st_size:
        raise ValueError(f"{spec}: {found} is empty; expected at least one record")
    return found
