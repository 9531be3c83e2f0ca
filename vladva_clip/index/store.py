"""An index on disk: one `.npz` file that NumPy reads, without pickle; or the same columns in another format.

    features   (N, D) float32, rows of length 1; or codes of them, see `vladva_clip.index.codes`
    ranges     (2, D) float32, for int8 codes only
    kinds      (N,) text, "image" or "text"
    names      a JSON list of N texts, as bytes (uint8): json.loads(bytes(data["names"]))
    made_by    a JSON object, as one text: json.loads(str(data["made_by"]))
    sizes      (N,) int64, bytes of a picture's file, -1 for other rows
    times      (N,) int64, when it was last changed, nanoseconds since 1970, -1 for other rows

Names are JSON because NumPy's own arrays of text drop NULs at the end, and give each text the space of the longest.
Nothing is compressed, so a file never takes more memory than its size. `vladva embed` also writes these columns as
`.safetensors` and `.parquet` (`vladva_clip.bulk.outputs`), which `load` reads too.
"""

import json
import math
import os
import stat
import tokenize
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vladva_clip.compact import check_truncate_dim
from vladva_clip.index import column_files, npz_arrays
from vladva_clip.index.codes import Codes
from vladva_clip.index.npz_arrays import OF_FILES
from vladva_clip.interface import extras
from vladva_clip.storage import json_files, plain_files, whole

SUFFIX = ".npz"
KINDS = ("image", "text")
PROBES = ("image_probe", "text_probe")  # in `made_by`: D numbers each, see `embed.probes`
# in `made_by`: text, or nothing
WORDS = ("model", "pretrained", "profile", "precision", "version", "directory", "quantized")
_CODES = ("int8", "binary")  # how `made_by` may say that features are quantized
PARQUET = ".parquet"
_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    SUFFIX: npz_arrays.read,
    ".safetensors": column_files.read_safetensors,
    PARQUET: column_files.read_parquet,
}
_ROWS = 1 << 12  # checked at a time
_ROUNDING = 1e-3  # of a length of 1
# what zipfile and NumPy raise for damaged files, and for headers made to do harm
_FLAWS = (
    *(zipfile.BadZipFile, tokenize.TokenError, SyntaxError, EOFError, OSError),
    *(ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
)


@dataclass(frozen=True, eq=False)
class Index:
    """Features of N pictures and texts.

    features: `(N, D)` float32, each row of length 1, or `Codes` that read so. kinds: "image" or "text". names: a
    picture's path as it was listed, or the text itself. made_by: the model's name, tag, profile and precision, the
    package's version, the working directory, how features are quantized (`WORDS`), `truncate_dim` or None, and the
    probes that identify the model (`embed.probes`). sizes, times: `(N,)` int64, of the pictures' files, -1 for other
    rows; None in indexes of the first release.

    Raises:
        ValueError: other types or shapes, counts that disagree, unknown kinds, rows that are not of length 1, words
            that are not text, or missing probes.
    """

    features: np.ndarray | Codes
    kinds: list[str]
    names: list[str]
    made_by: dict[str, Any]
    sizes: np.ndarray | None = None
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.features.dtype != np.float32 or self.features.ndim != 2 or not self.features.shape[1]:
            raise ValueError(
                f"features are {self.features.dtype} {self.features.shape}, expected float32 (rows, dimensions)"
            )
        counts = {"features": len(self.features), "kinds": len(self.kinds), "names": len(self.names)}
        counts |= {name: len(found) for name in OF_FILES if (found := getattr(self, name)) is not None}
        if len(set(counts.values())) > 1:
            raise ValueError(f"the numbers of rows differ: {counts}")
        if unknown := set(self.kinds) - set(KINDS):
            raise ValueError(f"the kind {min(unknown)!r:.60} is unknown, expected image or text")
        _check_lengths(self.features)
        _check_made_by(self.made_by, self.features.shape[1])


def require_suffix(path: Path, suffixes: Sequence[str] = (SUFFIX,)) -> None:
    """Refuse the name of an index with another suffix than .npz, or those given; raises ValueError."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"the index {path} has the suffix {path.suffix!r}, expected {', '.join(suffixes)}")


def save(index: Index, path: Path) -> None:
    """Write an index, whole or not at all; a file that is there is replaced.

    Raises:
        ValueError: another suffix than .npz.
        OSError: it can't be written.
    """
    require_suffix(path)
    arrays = {
        **_stored(index.features),
        "kinds": np.array(index.kinds, dtype="<U5"),
        "names": np.frombuffer(json.dumps(index.names).encode(), np.uint8),
        "made_by": np.array(json.dumps(index.made_by)),
        **{name: found for name in OF_FILES if (found := getattr(index, name)) is not None},
    }
    with whole.file(path) as new, open(new, "wb") as file:
        np.savez(file, **arrays)  # none of them is of objects, so nothing is pickled


def load(path: Path) -> Index:
    """Read an index: `.npz`, `.safetensors` or `.parquet`.

    Raises:
        ExtraError: pyarrow, which reads Parquet, is not installed.
        ValueError: another suffix, a file that is missing, truncated, damaged or not an index; a compressed `.npz`.
    """
    require_suffix(path, tuple(_READERS))
    if path.suffix.lower() == PARQUET:
        extras.require("pyarrow", purpose="Parquet")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("not a regular file")
        return _index(_READERS[path.suffix.lower()](path))
    except _FLAWS as error:
        raise ValueError(
            f"{path} can't be read as an index ({plain_files.said(error)}); expected a file that vladva embed wrote"
        ) from error


def _index(arrays: dict[str, np.ndarray]) -> Index:
    names = json_files.parse(arrays["names"].tobytes(), json_files.RECORDS)
    made_by = json_files.parse(arrays["made_by"].item(), json_files.RECORDS)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names are not a list of texts")
    features = _features(arrays, made_by)
    return Index(features, arrays["kinds"].tolist(), names, made_by, arrays.get("sizes"), arrays.get("times"))


def _stored(features: np.ndarray | Codes) -> dict[str, np.ndarray]:
    if isinstance(features, np.ndarray):
        return {"features": features}
    return {"features": features.stored} | ({} if features.ranges is None else {"ranges": features.ranges})


def _features(arrays: dict[str, np.ndarray], made_by: Any) -> np.ndarray | Codes:
    quantized = made_by.get("quantized") if isinstance(made_by, dict) else None
    if quantized is None:
        return arrays["features"]
    if quantized not in _CODES or ("ranges" in arrays) != (quantized == "int8"):
        raise ValueError(f"made_by says that features are quantized as {quantized!r:.60}, which its arrays are not")
    return Codes(arrays["features"], len(made_by[PROBES[0]]), arrays.get("ranges"))


def _check_lengths(features: np.ndarray | Codes) -> None:
    for start in range(0, len(features), _ROWS):
        some = features[start : start + _ROWS]
        lengths = np.sqrt(np.einsum("nd,nd->n", some, some))
        wrong = ~(np.abs(lengths - 1) < _ROUNDING)  # also NaN
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"row {start + row} of the features has the length {lengths[row]:.4g}, expected 1")


def _check_made_by(made_by: Any, width: int) -> None:
    if not isinstance(made_by, dict):
        raise ValueError(f"made_by is {type(made_by).__name__}, expected an object")
    check_truncate_dim(made_by.get("truncate_dim"), width)
    for name in WORDS:
        if not isinstance(found := made_by.get(name), str | None) or "\0" in (found or ""):
            raise ValueError(f"made_by has the {name} {found!r:.60}, expected text")
    for name in PROBES:
        if not _is_probe(made_by.get(name), width):
            raise ValueError(f"made_by has no {name} of {width} numbers and length 1, which identifies the model")


def _is_probe(value: Any, width: int) -> bool:
    if not isinstance(value, list) or len(value) != width:
        return False
    numbers = all(isinstance(one, int | float) and abs(one) <= 1 + _ROUNDING for one in value)  # NaN is not
    return numbers and abs(math.hypot(*value) - 1) < _ROUNDING
