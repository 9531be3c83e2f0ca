"""Parquet parts as Spark, Dask and pandas write them, and which of a table's columns is the image."""

import os

import datasets
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tests.support.training.pairs import encoded, pixels_of
from vladva_training.data.specs import open_source


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


@pytest.fixture
def write(tmp_path):
    """Write a part with these columns, at a path below the test's folder."""

    def part(name, **columns):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table(columns), path)
        return path

    return part


def pair(number=0, rows=1):
    """Columns with one row or none, with the types of a complete part."""
    images = pyarrow.array([encoded(number)] * rows, pyarrow.binary())
    return {"image": images, "caption": pyarrow.array([f"picture {number}"] * rows, pyarrow.string())}


def refusal(spec):
    with pytest.raises(ValueError) as caught:
        open_source(spec)
    return str(caught.value)


def test_parts_without_rows_are_skipped(write, tmp_path):
    write("a.parquet", **pair(rows=0))
    write("b.parquet", **pair(1))
    write("c.parquet", other=pyarrow.array([], pyarrow.int64()))
    for name in ("_SUCCESS", "_metadata", "._b.parquet", "_c.parquet", ".b.parquet.crc"):
        (tmp_path / name).write_bytes(b"what programs leave beside")
    source = open_source(f"parquet:{tmp_path}")
    assert len(source) == 1 and source[0].captions == ("picture 1",)
    (tmp_path / "b.parquet").unlink()
    assert "none of 2 files" in refusal(f"parquet:{tmp_path}")
    assert "a.parquet has no rows" in refusal(f"hf:{tmp_path}:train")


def test_parts_may_differ_in_unused_columns_and_in_storage(write, tmp_path):
    write("a.parquet", image_path=["a.png"], caption=pyarrow.nulls(1), n=[1])
    write("b.parquet", n=[0.5], caption=pyarrow.array(["b"], pyarrow.large_string()), image_path=["b.png"])
    texts = {
        name: pyarrow.array([text]).dictionary_encode() for name, text in (("image_path", "c.png"), ("caption", "c"))
    }
    write("c.parquet", **texts, day=pyarrow.array([2**60], pyarrow.timestamp("ms")))  # a date beyond Python's range
    source = open_source(f"parquet:{tmp_path}")
    assert [source.captions(index) for index in range(3)] == [(), ("b",), ("c",)]


def test_a_part_whose_lists_are_all_empty_has_no_type(write, tmp_path):
    write("a.parquet", image=pair()["image"], captions=[[]])
    write("b.parquet", image=pair()["image"], captions=[["b", "c"]])
    source = open_source(f"parquet:{tmp_path}")
    assert [source.captions(index) for index in range(2)] == [(), ("b", "c")]


def test_parts_that_differ_in_used_columns_are_refused_by_name(write, tmp_path):
    write("a.parquet", **pair())
    for columns, said in (
        ({**pair(), "caption": [5]}, "caption is int64 in .*b.parquet, but string in .*a.parquet"),
        ({**pair(), "image": ["a.png"]}, "image is string in .*b.parquet"),
        ({"image": pair()["image"]}, "b.parquet: no caption"),
        ({**pair(), "long_caption": ["x"]}, "b.parquet has the columns image, caption, long_caption"),
    ):
        write("b.parquet", **columns)
        with pytest.raises(ValueError, match=said):
            open_source(f"parquet:{tmp_path}")


def test_a_damaged_part_is_named(write, tmp_path):
    write("a.parquet", **pair())
    damaged = write("b.parquet", **{name: column.take([0] * 999) for name, column in pair().items()})
    data = damaged.read_bytes()
    for content in (b"", b"PAR1 no", data[:-500], data[:100] + bytes(400) + data[500:]):
        damaged.write_bytes(content)
        assert "b.parquet is " in refusal(f"parquet:{tmp_path}")
    assert "cannot open it" in refusal(f"hf:{tmp_path}:train")


def test_a_repeated_column_is_refused(tmp_path):
    columns = [pair()["image"], *[pyarrow.array(["a"])] * 2]
    parquet.write_table(pyarrow.table(columns, ["image", "caption", "caption"]), tmp_path / "a.parquet")
    assert "caption appears 2 times" in refusal(f"parquet:{tmp_path}")
    (tmp_path / "a.csv").write_text("image_path,caption,caption\na.png,b,c\n")
    assert "caption appears 2 times" in refusal(f"csv:{tmp_path}/a.csv")


def test_relative_paths_start_at_the_rows_own_file(write, tmp_path):
    for number, folder in enumerate("ab"):
        write(f"{folder}/[{number}].parquet", image_path=["x.jpg"], caption=[folder])  # a name that is also a pattern
        (tmp_path / folder / "x.jpg").write_bytes(encoded(number))
    source = open_source(f"parquet:{tmp_path}/{{a/[0],b/[1]}}.parquet")
    for number in range(2):
        assert np.array_equal(np.asarray(source[number].image), pixels_of(encoded(number)))


def test_partitions_are_read_and_other_folders_named(write, tmp_path):
    for year in (2023, 2024):
        write(f"data/year={year}/a.parquet", image_path=["x.jpg"], caption=[f"in {year}"])
    (tmp_path / "data" / "x.jpg").write_bytes(encoded(2))
    source = open_source(f"parquet:{tmp_path}/data")
    assert [source[index].captions for index in range(len(source))] == [("in 2023",), ("in 2024",)]
    assert f" in {tmp_path}/data/year=2023: " in refusal(f"parquet:{tmp_path}")


def table(tmp_path, pictures=(), **columns):
    """A table of one row in which some columns have the feature `Image`."""
    found = datasets.Dataset.from_dict({"caption": ["a"], **columns})
    for name in pictures:
        found = found.cast_column(name, datasets.Image())
    found.to_parquet(tmp_path / "t.parquet")
    found.save_to_disk(tmp_path / "saved")
    return f"parquet:{tmp_path}/t.parquet", f"hf:{tmp_path}/saved"


@pytest.mark.parametrize("photo", ["image", "image_path", "image_bytes"])
def test_a_mask_is_not_preferred_to_an_image(tmp_path, photo):
    mask = {"mask": [{"bytes": encoded(1), "path": None}]}
    (tmp_path / "photo.jpg").write_bytes(encoded(0))
    value = encoded(0) if photo == "image_bytes" else os.fspath(tmp_path / "photo.jpg")
    for spec in table(tmp_path, ["mask"], **mask, **{photo: [value]}):
        assert np.array_equal(np.asarray(open_source(spec)[0].image), pixels_of(encoded(0)))


def test_several_image_columns_are_refused(tmp_path):
    pictures = {name: [{"bytes": encoded(0), "path": None}] for name in ("mask", "photo")}
    for spec in table(tmp_path, pictures, **pictures, image=[7]):  # `image` is a number here, not a picture
        said = refusal(spec)
        assert "mask or photo" in said and "Rename it to image" in said
    for spec in table(tmp_path, ["photo"], photo=pictures["photo"], image=[7]):
        assert np.array_equal(np.asarray(open_source(spec)[0].image), pixels_of(encoded(0)))
