"""What a bare path or a bare Hub id, given as a model's name, was probably meant to be."""

import os
import re
from collections.abc import Collection

from vladva_clip.storage.config import HUB, LOCAL, nearest

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
SOURCES = f"{LOCAL}PATH or {HUB}ORG/REPO[@REVISION]"


def is_path(name: str) -> bool:
    """Whether a name can only be a path: no Hub id looks like it."""
    separators = [one for one in (os.sep, os.altsep, "/") if one]
    has_separator = any(one in name for one in separators)
    return name.startswith(("~", ".")) or os.path.isabs(name) or (has_separator and not _REPOSITORY.fullmatch(name))


def is_directory(name: str) -> bool:
    """Whether a name is a directory's path, with `~` for the home directory; False for what can't be a path."""
    return os.path.isdir(os.path.expanduser(name))


def hint(name: str, known: Collection[str], repositories: dict[str, str]) -> str:
    """Return what to write instead of a name that no model has.

    Args:
        name: what the user wrote.
        known: the valid names.
        repositories: the Hub ids of known models, in lower case -> a model's name.

    Returns:
        The rest of an error message: the spellings that would work, or the nearest names.
    """
    if name.rstrip("/") in known:
        return f"did you mean {name.rstrip('/')}?"
    short = repositories.get(name.partition("@")[0].lower())
    meant = [*([short] if short else []), *([f"{LOCAL}{name}"] if is_directory(name) else [])]
    if _REPOSITORY.fullmatch(name) and name.partition("/")[0].lower() not in known:  # ours are never the Hub's
        meant.append(f"{HUB}{name}")
    if meant:
        missing = f" (there is no directory {name} here)" if "/" in name and not is_directory(name) else ""
        return f"did you mean {' or '.join(meant)}?{missing}"
    if is_path(name):
        place = os.path.abspath(os.path.expanduser(name))
        found = f"{place} is a file" if os.path.exists(place) else f"there is no directory {place}"
        return f"{found}; a model is a name of list_models(), {SOURCES}"
    return f"{nearest(name, known)} (or give a source: {SOURCES})"
