"""Which files an adapter's directory may hold, and where they and a base's may lie. Nothing is opened here.

A directory is the user's: notes, pictures, results and whole folders are left alone, as nothing reads them. Refused by
name are files of kinds that run code or hide it, since an adapter never has one, and files of ours that are links to a
place outside.
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
    PROGRAMS: "an adapter has no programs, they are refused; keep them elsewhere",
    ARCHIVES: "archives hide what they hold and are refused; keep them elsewhere",
}


def check(directory: Path, names: Iterable[str]) -> None:
    """Check the top level of an adapter directory; folders in it are never opened, and not looked into.

    Args:
        directory: the adapter's.
        names: the files that are going to be read, as far as they are there.

    Raises:
        ValueError: no directory, a refused kind of file, or a file of `names` that is none or lies elsewhere.
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
        _check_place(directory, directory / name)


def refuse_links_out(directory: Path, names: Iterable[str]) -> None:
    """Refuse files of a base that are links to a place outside: what they hold gets into what is saved and pushed.

    Raises:
        ValueError: naming the first.
    """
    for name in names:
        if (directory / name).is_symlink():
            _mode(directory / name)
            _check_place(directory, directory / name)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise RuntimeError for links in a circle
        raise ValueError(f"{path.name} in {path.parent} is a link to nothing: get it again ({error})") from error


def _check_place(directory: Path, path: Path) -> None:
    real = path.resolve()
    if not any(real.is_relative_to(place) for place in _places(directory.resolve())):
        raise ValueError(
            f"{path.name} in {directory} is a link to {real}, outside the adapter or base: refused, a file of someone "
            "else's choice would be read; put the file itself there, or a hard link to it"
        )


def _places(directory: Path) -> list[Path]:
    """Where an adapter's files may lie: in it, or for a snapshot of the Hub's cache in that cache's stores of blobs."""
    if directory.parent.name != "snapshots":
        return [directory]
    repo = directory.parent.parent  # its own store, and the one of the whole cache (huggingface_hub 2.x)
    return [directory, *((place / "blobs").resolve() for place in (repo, repo.parent))]
