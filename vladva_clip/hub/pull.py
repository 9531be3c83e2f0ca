"""Pull an adapter (or a bare LVLM) from the Hub into the cache or a new directory."""

import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

from vladva_clip.interface.arguments import user_path
from vladva_clip.sources.download import SMALL_FILES
from vladva_clip.sources.locate import Source, from_name
from vladva_clip.storage import adapter_files, places, whole


def pull_from_hub(
    name: str, output: str | Path | None = None, cache_dir: str | None = None, revision: str | None = None
) -> Path:
    """Download an adapter from the Hub; it is read and checked before its directory is returned.

    Args:
        name: the Hub id, `org/name` or `org/name@revision`.
        output: the directory to write, which must be new or empty; None means the Hub's cache only.
        cache_dir: the Hub's cache.
        revision: branch, tag or commit; alternative to `@revision`.

    Returns:
        The directory: the output, or the snapshot in the cache.

    Raises:
        ValueError: the Hub refuses, files are invalid, or the output exists and isn't empty; no output is written then.
    """
    output = None if output is None else user_path(output).absolute()
    if output is not None and os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"{output} already exists and is not an empty directory; choose another name")
    if output is not None:
        places.check_folder(output)
    source = from_name(name if name.startswith("hf-hub:") else f"hf-hub:{name}", cache_dir, revision)
    if source.is_adapter:
        adapter_files.read(source.directory)
    return source.directory if output is None else _copy(source, output)


def _copy(source: Source, output: Path) -> Path:
    """Copy only the files that we download, whatever else the cache has there."""
    with whole.folder(output, replace=False) as scratch:
        shutil.copytree(source.directory, scratch, ignore=_not_ours, dirs_exist_ok=True)
    return output


def _not_ours(folder: str, names: list[str]) -> set[str]:
    kept = (*SMALL_FILES, "*.safetensors")
    return {name for name in names if not Path(folder, name).is_dir() and not any(fnmatch(name, kind) for kind in kept)}
