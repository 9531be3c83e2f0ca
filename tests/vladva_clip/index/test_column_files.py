"""Parquet and safetensors, as `vladva embed` writes them, are the same index as `.npz`, and are refused with a reason
when anything is wrong with them.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.support.index_rows import KINDS, NAMES
from vladva_clip.bulk import outputs
from vladva_clip.bulk.coding import coding_of
from vladva_clip.bulk.joining import Failures
from vladva_clip.bulk.parts import Part, Row
from vladva_clip.index.codes import Codes
from vladva_clip.index.store import Index, load

SUFFIXES = (".parquet", ".safetensors")
FAILED = Row("bad.png", error="is not a readable picture")


def parts_of(index: Index) -> list[Part]:
    """The rows of an index in two parts, of pictures and of texts, with a failed picture between them."""
    stated = [(100 + row, 10**18 + row) if kind == "image" else (None, None) for row, kind in enumerate(KINDS)]
    rows = [Row(*row) for row in zip(NAMES, KINDS, *zip(*stated, strict=True), strict=True)]
    features = torch.from_numpy(index.features)
    images = Part(torch.cat([features[:5], torch.zeros(1, 6)]), [*rows[:5], FAILED])
    return [images, Part(features[5:], rows[5:])]


def write(index: Index, path: Path, precision: str | None = None) -> Path:
    parts = parts_of(index)
    (path.parent / path.suffix[1:]).mkdir()
    with Failures(path.parent / "failures") as failed:
        coding = coding_of(precision, lambda: parts)
        outputs.write(path, path.suffix, parts, coding, index.made_by, failed, path.parent / path.suffix[1:])
    assert failed.count == 1
    return path


@pytest.mark.parametrize("precision", [None, "int8", "binary"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_they_hold_the_same_index(index, tmp_path, suffix, precision):
    expected = load(write(index, tmp_path / "a.npz", precision))
    found = load(write(index, tmp_path / f"a{suffix}", precision))
    every = slice(None)
    assert isinstance(found.features, Codes) == (precision is not None)
    assert np.array_equal(found.features[every], expected.features[every])
    assert (found.kinds, found.names, found.made_by) == (KINDS, NAMES, expected.made_by)
    assert found.sizes.tolist() == expected.sizes.tolist() == [100, 101, 102, 103, 104, -1, -1, -1]
    assert found.times.tolist() == expected.times.tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_of_the_file_is_refused(index, tmp_path, suffix):
    path = write(index, tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"a{suffix} can't be read as an index"):
            load(path)


def test_a_changed_byte_of_a_parquet_file_never_gives_another_index(index, tmp_path):
    path, rng, refused = write(index, tmp_path / "a.parquet"), np.random.default_rng(0), 0
    whole, expected = path.read_bytes(), load(path)
    for place in rng.integers(0, len(whole), 200):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :])
        try:
            found = load(path)
        except ValueError as error:
            assert "a.parquet can't be read as an index" in str(error)
            refused += 1
        else:  # statistics and the like
            assert np.array_equal(found.features, expected.features) and found.names == NAMES
    assert refused > 50


@pytest.mark.parametrize("missing", ["name", "name_bytes", "error", "features", "size", "time", "kind"])
def test_a_missing_column_is_named(index, tmp_path, missing):
    path = write(index, tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns([missing]), path)
    with pytest.raises(ValueError, match=f"a.parquet.*{missing}"):
        load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kinds", lambda found: found.astype(np.int32)),
        ("kinds", lambda found: found[:, :4]),
        ("kinds", lambda found: found + 2**24),
        ("features", lambda found: found[1:]),
        ("features", lambda found: found.astype(np.float64)),
        ("names", lambda found: found[:-1]),
    ],
)
def test_other_arrays_of_a_safetensors_file_are_refused(index, tmp_path, name, change):
    path = write(index, tmp_path / "a.safetensors")
    arrays, made_by = load_file(path), json.dumps(index.made_by)
    save_file(arrays | {name: np.ascontiguousarray(change(arrays[name]))}, path, {"made_by": made_by})
    with pytest.raises(ValueError, match="a.safetensors can't be read as an index"):
        load(path)
    save_file(arrays, path, {"made_by": made_by})
    assert load(path).names == NAMES


def test_files_of_something_else_are_refused(tmp_path):
    save_file({"weight": np.ones((2, 2), np.float32)}, tmp_path / "a.safetensors")
    pyarrow.parquet.write_table(pyarrow.table({"caption": ["a cat"]}), tmp_path / "a.parquet")
    for suffix in SUFFIXES:
        with pytest.raises(ValueError, match="expected a file that vladva embed wrote"):
            load(tmp_path / f"a{suffix}")


def test_features_that_are_not_lists_of_equal_length_are_refused(index, tmp_path):
    path = write(index, tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(path)
    other = table.set_column(table.column_names.index("features"), "features", [[[1.0]] * len(table)])
    pyarrow.parquet.write_table(other, path)
    with pytest.raises(ValueError, match="expected lists of equal length"):
        load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_rows(index, tmp_path, suffix):
    empty = replace(index, features=index.features[:0], kinds=[], names=[])
    path, coding = tmp_path / f"a{suffix}", coding_of(None, list)
    with Failures(tmp_path / "failures") as failed:
        part = Part(torch.zeros(1, 6), [FAILED])
        outputs.write(path, suffix, [part], coding, empty.made_by, failed, tmp_path)
    assert load(path).features.shape == (0, 6)
