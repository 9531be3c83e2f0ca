"""The arrays of an index from its `.npz` file, which is not trusted: neither its headers nor its sizes."""

import zipfile
from pathlib import Path

import numpy as np

_ARRAYS = {  # name -> NumPy's letters for the types it may have, number of dimensions
    "features": ("fiu", 2),
    "kinds": ("U", 1),
    "names": ("u", 1),
    "made_by": ("U", 0),
}
OF_FILES = {"sizes": ("i", 1), "times": ("i", 1)}  # indexes of the first release have none
_RANGES = {"ranges": ("f", 2)}  # of int8 codes
_TYPES = {"f": "floats", "U": "text", "u": "bytes", "i": "whole numbers"}
_WIDEST = 1 << 10  # bytes of an array's header


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name.

    Raises:
        ValueError: other arrays, compressed ones, or sizes that disagree; else what zipfile and NumPy raise.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as entries:
        return _arrays(entries)


def _arrays(entries: zipfile.ZipFile) -> dict[str, np.ndarray]:
    found = {entry.filename for entry in entries.infolist()}
    wanted = _ARRAYS | (OF_FILES if "sizes.npy" in found else {}) | (_RANGES if "ranges.npy" in found else {})
    if found != {f"{name}.npy" for name in wanted} or len(entries.infolist()) != len(wanted):
        raise ValueError(f"it holds {sorted(found)!s:.200}, expected the arrays {', '.join(wanted)}")
    arrays = {name: _array(entries, name) for name in wanted}
    check(arrays)
    return arrays


def check(arrays: dict[str, np.ndarray]) -> None:
    """Check the types of an index's arrays and their numbers of dimensions.

    Raises:
        ValueError: one is of another type or shape.
    """
    for name, (letter, dimensions) in (_ARRAYS | OF_FILES | _RANGES).items():
        found = arrays.get(name)
        if found is not None and (found.dtype.kind not in letter or found.ndim != dimensions):
            raise ValueError(
                f"{name} is {found.dtype} in {found.ndim} dimensions, expected {_TYPES[letter[0]]} in {dimensions}"
            )


def _array(entries: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array whose header promises as many bytes as the file has; NumPy alone would trust the header."""
    entry = entries.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f"{name} is compressed, expected a plain array (np.savez)")
    with entries.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{name} has version {version} of NumPy's format, expected (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_WIDEST)
        promised = file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or promised != entry.file_size:
        raise ValueError(f"{name} should have {promised} bytes ({dtype} {shape}), found {entry.file_size}")
    with entries.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False, max_header_size=_WIDEST)
