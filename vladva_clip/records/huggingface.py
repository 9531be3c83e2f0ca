"""Hugging Face data sets as map-style sources, memory-mapped by `datasets`."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from vladva_clip.interface import extras
from vladva_clip.records.fields import CAPTION_FIELDS, CONVERSATIONS, FIELDS, IMAGE_FIELDS
from vladva_clip.records.records import BadRecord
from vladva_clip.records.tables import RowSource, require_columns


def open_huggingface(rest: str, spec: str) -> "DatasetSource":
    """Open `DIRECTORY[:SPLIT]` (saved by `save_to_disk`, or anything that `load_dataset` reads) or
    `NAME[:CONFIG]:SPLIT`; a split can be a slice, as in `train[:1000]`.

    Raises:
        ExtraError: datasets is not installed.
        ValueError: no such data set or split, no rows, no image or caption column.
    """
    extras.require("datasets", "pyarrow", purpose=spec)
    form = re.fullmatch(r"(?P<name>[^:]+)(?::(?P<config>[^:\[\]]+))??(?::(?P<split>[^:\[\]]+(?:\[.*\])?))?", rest)
    if form is None:
        raise ValueError(f"{spec}: expected hf:DIRECTORY[:SPLIT] or hf:NAME[:CONFIG]:SPLIT")
    name, config, split = form["name"], form["config"], form["split"]
    folder = Path(name).expanduser()
    if folder.is_dir() and {item.name for item in folder.iterdir()} & {"dataset_dict.json", "state.json"}:
        return DatasetSource(_load_saved(folder, split, spec), spec, folder)
    if split is None:
        raise ValueError(f"{spec}: which split? Expected hf:NAME[:CONFIG]:SPLIT, such as {spec}:train")
    return DatasetSource(_load(str(folder) if folder.is_dir() else name, config, split, spec), spec, folder)


class DatasetSource(RowSource):
    """The rows of a `datasets.Dataset`; images stay encoded until a record is read. Keys are like "row 17".

    Its columns are those of `FIELDS`, and `CONVERSATIONS` if none of them is a caption. If none of `IMAGE_FIELDS` is
    there, the image is the only column with the feature `Image`, whatever its name.
    """

    def __init__(self, dataset, name: str, folder: Path, captioned: bool = True) -> None:
        super().__init__(name, folder)
        if not len(dataset):
            raise ValueError(f"{name}: the data set has no rows; expected at least one")
        # as Arrow: in any other format `datasets` would decode the pictures
        self._dataset = _encoded(dataset, name, captioned).with_format("arrow")

    def __len__(self) -> int:
        return len(self._dataset)

    def key(self, index: int) -> str:
        return f"row {index + 1}"

    def row(self, index: int) -> Mapping[str, object]:
        try:
            return self._dataset[int(index)].to_pylist()[0]
        except UnicodeDecodeError as error:
            raise BadRecord("not utf-8", self.key(index), str(error)) from error
        except (ValueError, OverflowError) as error:  # Arrow's errors are ValueErrors; a date out of Python's range
            raise BadRecord("malformed row", self.key(index), str(error)) from error


def opening_errors() -> tuple[type[Exception], ...]:
    """Return the errors that `datasets` and pyarrow raise for files and data sets that they can't open."""
    import pyarrow
    from datasets.exceptions import DatasetsError

    return (OSError, ValueError, TypeError, LookupError, NotImplementedError, pyarrow.ArrowException, DatasetsError)


def fields_by_column(features: Mapping[str, object], where: str, captioned: bool = True) -> dict[str, str]:
    """Return column -> field, for the columns that are read.

    Args:
        features: column -> its `datasets` feature.
        where: for messages.
        captioned: whether there must be a caption column.

    Raises:
        ValueError: no image or caption column, or several possible image columns.
    """
    from datasets import Image

    readable = FIELDS if set(CAPTION_FIELDS) & set(features) else (*FIELDS, CONVERSATIONS)
    columns = {name: name for name in readable if name in features}
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    if not any(_holds_image(features[name]) for name in IMAGE_FIELDS if name in columns):
        if len(images) > 1:
            raise ValueError(
                f"{where}: which column is the image, {' or '.join(images)}? Rename it to image, or drop the others"
            )
        columns = {name: name for name in columns if name != "image" or not images} | dict.fromkeys(images, "image")
    require_columns([columns.get(name, name) for name in features], where, captioned)
    return columns


def _holds_image(feature: object) -> bool:
    """Whether a column can hold images: encoded ones, bytes or paths, but not numbers or lists."""
    kind = re.sub("^large_|_view$", "", str(getattr(feature, "dtype", "")))
    return isinstance(feature, Mapping) or kind in ("string", "binary", "PIL.Image.Image")


def _encoded(dataset, name: str, captioned: bool = True):
    """The data set with the columns that are read, its image column named `image` and left encoded."""
    from datasets import Image

    fields = fields_by_column(dataset.features, name, captioned)
    dataset = dataset.select_columns(list(fields))
    for column in fields:
        if isinstance(dataset.features[column], Image):
            dataset = dataset.cast_column(column, Image(decode=False))
    return dataset.rename_columns({column: field for column, field in fields.items() if column != field})


def _load_saved(folder: Path, split: str | None, spec: str):
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except opening_errors() as error:
        raise ValueError(
            f"{spec}: {folder} is not a complete data set of save_to_disk, or has no rows ({error}): save it again"
        ) from error
    if isinstance(found, DatasetDict):
        if split not in found:
            raise ValueError(f"{spec}: the split is {split!r}, expected one of {', '.join(found)}")
        return found[split]
    if split not in (None, str(found.split)):
        raise ValueError(f"{spec}: {folder} holds a single data set, split {found.split}; remove :{split}")
    return found


def _load(name: str, config: str | None, split: str, spec: str):
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split)
    except opening_errors() as error:  # not found, no network, no such config or split, inconsistent files
        reason = error.__cause__ or error
        raise ValueError(
            f"{spec}: datasets.load_dataset cannot open it: {type(reason).__name__}: {reason}{_empty_part(Path(name))}"
        ) from error


def _empty_part(folder: Path) -> str:
    """Return a hint if a Parquet file has no rows, which makes `load_dataset` fail."""
    import pyarrow.parquet

    for path in sorted(folder.rglob("*.parquet")) if folder.is_dir() else ():
        with contextlib.suppress(*opening_errors()):
            if not pyarrow.parquet.read_metadata(path).num_rows:
                return f"; {path} has no rows: remove it, or open the files with parquet:"
    return ""
