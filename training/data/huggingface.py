"""Hugging Face data sets and Parquet files as map-style sources, memory-mapped by `datasets`."""

import re
from collections.abc import Mapping
from pathlib import Path

from vladva_training.data.paths import expand_files
from vladva_training.data.records import BadRecord
from vladva_training.data.tables import RowSource, require_columns


def open_parquet(pattern: str, spec: str) -> "DatasetSource":
    """Open Parquet files by a path, a path with braces or a directory; `datasets` keeps a mapped copy in its cache.

    Raises:
        ValueError: missing files, files that are no Parquet, no row, no image or caption column.
    """
    import pyarrow
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    paths = expand_files(pattern, ".parquet", spec)
    try:
        found = Dataset.from_parquet([str(path) for path in paths])
    except (DatasetGenerationError, pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise ValueError(f"{spec}: not Parquet files of one form: {error.__cause__ or error}") from error
    return DatasetSource(found, spec, paths[0].parent)


def open_huggingface(rest: str, spec: str) -> "DatasetSource":
    """Open `DIRECTORY[:SPLIT]` (saved by `save_to_disk`, or anything that `load_dataset` reads) or
    `NAME[:CONFIG]:SPLIT`; a split may be cut, as in `train[:1000]`.

    Raises:
        ValueError: no such data set or split, no row, no image or caption column.
    """
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
    """The rows of a `datasets.Dataset`; images stay encoded until a record is read. A key is "row 17".

    The image column is the first with the feature `Image`, whatever its name, or else one of `IMAGE_FIELDS`.
    """

    def __init__(self, dataset, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        if not len(dataset):
            raise ValueError(f"{name}: the data set holds no row; expected at least one")
        # as Arrow, since `datasets` would decode pictures in any format, also in columns that nobody asked for
        self._dataset = _encoded(dataset).with_format("arrow")
        require_columns(self._dataset.column_names, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def key(self, index: int) -> str:
        return f"row {index + 1}"

    def row(self, index: int) -> Mapping[str, object]:
        try:
            return self._dataset[int(index)].to_pylist()[0]
        except UnicodeDecodeError as error:
            raise BadRecord("not utf-8", self.key(index), str(error)) from error


def _encoded(dataset):
    """The data set with its image column named `image` and left encoded."""
    from datasets import Image

    columns = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    for name in columns:
        dataset = dataset.cast_column(name, Image(decode=False))
    if columns and "image" not in columns:
        dataset = dataset.remove_columns([name for name in ("image",) if name in dataset.column_names])
        dataset = dataset.rename_column(columns[0], "image")
    return dataset


def _load_saved(folder: Path, split: str | None, spec: str):
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{spec}: {folder} is no data set saved by save_to_disk: {error}") from error
    if isinstance(found, DatasetDict):
        if split not in found:
            raise ValueError(f"{spec}: the split is {split!r}, expected one of {', '.join(found)}")
        return found[split]
    if split not in (None, str(found.split)):
        raise ValueError(f"{spec}: {folder} holds one data set, of split {found.split}; leave :{split} out")
    return found


def _load(name: str, config: str | None, split: str, spec: str):
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split)
    except (OSError, ValueError) as error:  # not found, no network, no such config or split
        raise ValueError(f"{spec}: datasets.load_dataset cannot open it: {type(error).__name__}: {error}") from error
