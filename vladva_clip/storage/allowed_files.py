"""Which files an adapter's directory may hold, and where an adapter's or a base's files may lie. Opens no file.

The directory belongs to the user: notes, pictures, results and whole folders are ignored, since nothing reads them.
Refused are file types that run code or hide it, since an adapter never has one, and links to places outside.
"""

import stat
from collections.abc import Iterable
from pathlib import Path

PICKLES = (
    *(".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5", ".hdf5"),
    *(".keras", ".msgpack", ".mar", ".ptl", ".torchscript"),
)
PROGRAMS = (
    *(".py", ".pyc", ".pyo", ".pyd", ".pyw", ".ipynb", ".so", ".dylib", ".dll", ".exe", ".com", ".msi", ".sh", ".bat"),
    *(".cmd", ".ps1", ".js", ".mjs", ".jar", ".class", ".wasm", ".pl", ".rb", ".php", ".lua", ".onnx", ".pb"),
)
ARCHIVES = (
    *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".lz4", ".7z", ".rar", ".whl", ".egg"),
    *(".iso", ".deb", ".rpm"),
)
_REASONS = {
    PICKLES: "pickles can run code and are refused; remove or convert them",
    PROGRAMS: "an adapter has no programs, so they are refused; keep them elsewhere",
    ARCHIVES: "archives hide what they hold and are refused; keep them elsewhere",
}


def check(directory: Path, names: Iterable[str]) -> None:
    """Check the top level of an adapter directory; its folders are not looked into.

    Args:
        directory: the adapter's.
        names: the files that are going to be read; they may be missing.

    Raises:
        ValueError: not a directory, a refused type of file, or one of `names` is not a regular file or links outside.
    """
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise ValueError(f"{directory} can't be read as a directory: {error}") from error
    for suffixes, reason in _REASONS.items():
        if found := [path.name for path in paths if path.suffix.lower() in suffixes and not path.is_dir()]:
            raise ValueError(f"{directory} holds {', '.join(found[:8])}: {reason}")
    for name in set(names) & {path.name for path in paths}:
        if not stat.S_ISREG(_mode(directory / name)):
            raise ValueError(f"{name} in {directory} is not a file: a folder, pipe or device has its name")
        require_inside(directory, directory / name)


def refuse_links_out(directory: Path, names: Iterable[str]) -> None:
    """Refuse files that link to places outside: their content would end up in what is saved and pushed.

    Args:
        directory: of an adapter or a base.
        names: the files that are going to be read, relative to it; they may be missing.

    Raises:
        ValueError: the first link that leads outside or nowhere.
    """
    for name in names:
        if (directory / name).is_symlink():
            _mode(directory / name)
            require_inside(directory, directory / name)


def require_inside(directory: Path, path: Path) -> None:
    """Refuse a file that lies outside its directory, over a link of its own or of a folder above it.

    A snapshot of the Hub's cache also includes the cache's blobs: the repository's own, and those that repositories
    share (huggingface_hub 2.x).

    Raises:
        ValueError: with the place where the file really is.
    """
    real = path.resolve()
    if not any(real.is_relative_to(place) for place in _places(directory.resolve())):
        raise ValueError(
            f"{path.name} in {directory} is a link to {real}, outside the adapter or base: refused, since someone else "
            "would choose which file is read; put the file itself there, or a hard link to it"
        )


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise RuntimeError for circular links
        raise ValueError(f"{path.name} in {path.parent} is a link to nothing: get it again ({error})") from error


def _places(directory: Path) -> list[Path]:
    """Where a directory's files may lie: in it and, for a snapshot of the Hub's cache, among that cache's blobs."""
    if directory.parent.name != "snapshots":
        return [directory]
    repo = directory.parent.parent  # its own blobs, and those of the whole cache
    return [directory, *((place / "blobs").resolve() for place in (repo, repo.parent))]
