import base64
import csv
import gzip
import json
import os
import pickle

import datasets
import numpy as np
import pytest

from tests.support.training.pairs import encoded, pixels_of
from vladva_clip.records import tables
from vladva_clip.records.records import BadRecord
from vladva_training.data.specs import open_source


@pytest.fixture
def pictures(tmp_path):
    """A folder with images/0.jpg to images/2.jpg."""
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(encoded(number))
    return tmp_path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


def assert_record(record, number, captions, hard_negatives=()):
    assert np.array_equal(np.asarray(record.image), pixels_of(encoded(number)))
    assert (record.captions, record.hard_negatives) == (captions, hard_negatives)


def reasons(source):
    """The reason why each row is bad, None for a good one."""
    found = []
    for index in range(len(source)):
        try:
            source[index]
            found.append(None)
        except BadRecord as error:
            found.append(error.reason)
            assert error.key == source.key(index)
    return found


def test_jsonl(pictures):
    in_base64 = base64.b64encode(encoded(1)).decode()
    rows = [
        {"image_path": "images/0.jpg", "caption": "a", "captions": ["b", "a", "c"], "hard_negatives": ["x"]},
        {"image_bytes": in_base64, "short_caption": "d", "long_caption": "e\nf", "image_path": None},
        {"image": str(pictures / "images" / "2.jpg"), "captions": "g"},
    ]
    path = pictures / "pairs.jsonl"
    path.write_text("\n" + "\n\n".join(map(json.dumps, rows)))
    source = open_source(f"jsonl:{path}")
    assert len(source) == 3
    assert_record(source[0], 0, ("a", "b", "c"), ("x",))
    assert_record(source[1], 1, ("d", "e\nf"))
    assert_record(pickle.loads(pickle.dumps(source))[2], 2, ("g",))
    assert [source.key(index) for index in range(3)] == ["line 2", "line 4", "line 6"]
    assert source.captions(0) == ("a", "b", "c")


def test_bad_lines(pictures):
    lines = [
        (b'{"image": "images/0.jpg", "caption": "fine"}', None),
        (b'{"image": "images/9.jpg", "caption": "a"}', "missing image"),
        (b'{"caption": "a"}', "missing image"),
        (b'{"image": "images/0.jpg"}', None),
        (b'{"image": "images/0.jpg", "captions": []}', None),
        (b'{"image": "images/0.jpg", "caption": "\xff"}', "not utf-8"),
        (b'{"image": "images/0.jpg", "caption": ', "not json"),
        (b'"text"', "not json"),
        (b"[" * 100_000, "not json"),
        (b'{"image": "images/0.jpg", "caption": {"en": "a"}}', "wrong type"),
        (b'{"image_bytes": "%%%", "caption": "a"}', "corrupt image"),
        (b'{"image_bytes": "aGVsbG8=", "caption": "a"}', "corrupt image"),
        (b'{"image": 5, "caption": "a"}', "missing image"),
        (b'{"image": "images", "caption": "a"}', "missing image"),
    ]
    path = pictures / "pairs.jsonl"
    path.write_bytes(b"\r\n".join(line for line, _ in lines))
    assert reasons(open_source(f"jsonl:{path}")) == [reason for _, reason in lines]


@pytest.mark.parametrize(("ending", "comma"), [("csv", ","), ("tsv", "\t"), ("TSV", "\t")])
def test_csv(pictures, ending, comma):
    rows = [
        ("image_path", "width", "caption"),
        ("images/0.jpg", "5", '"two\nlines, ""quoted"""'),
        ("images/2.jpg", "x", "ä"),
    ]
    path = pictures / f"pairs.{ending}"
    path.write_text("\ufeff" + "\n".join(comma.join(row) for row in rows), encoding="utf-8")
    source = open_source(f"csv:{path}")
    assert len(source) == 2
    assert_record(source[0], 0, ('two\nlines, "quoted"',))
    assert_record(pickle.loads(pickle.dumps(source))[1], 2, ("ä",))
    assert source.key(1) == "row 2" and source.captions(1) == ("ä",)


def test_bad_rows_of_a_csv_do_not_affect_others(pictures):
    rows = [
        (b"image_path,caption", None),
        (b"images/0.jpg,fine", None),
        (b"images/1.jpg,\xff\xfe", "not utf-8"),
        (b"images/1.jpg", "malformed row"),
        (b"\xffimages/1.jpg,a,b", "malformed row"),
        (b'images/1.jpg,"a" b', "malformed row"),
        (b"images/9.jpg,a", "missing image"),
        (b",a", "missing image"),
        (b'images/2.jpg,"two\nlines, 5"""', None),
        (b"images/2.jpg,", None),
    ]
    path = pictures / "pairs.csv"
    path.write_bytes(b"\r\n\r\n".join(row for row, _ in rows))
    source = open_source(f"csv:{path}")
    assert reasons(source) == [reason for _, reason in rows[1:]]
    assert source.captions(8) == ("",)  # an empty caption, which the splitter counts


def test_a_csv_with_large_images_in_it(pictures):
    path = pictures / "pairs.csv"
    data = base64.b64encode(encoded(0) + bytes(300_000)).decode()  # any bytes may follow a JPEG
    path.write_text(f"caption,image_bytes\na,{data}\nb,{data}\n")
    source = open_source(f"csv:{path}")
    csv.field_size_limit(131072)  # Python's default, with which a worker starts
    assert_record(source[1], 0, ("b",))


def test_a_quote_that_is_never_closed_is_refused(pictures):
    path = pictures / "pairs.csv"
    path.write_text('image_path,caption\nimages/0.jpg,fine\nimages/1.jpg,"open\nimages/2.jpg,fine\n')
    with pytest.raises(ValueError, match="row 2 of .* quote"):
        open_source(f"csv:{path}")


def test_a_file_that_is_not_utf8_text_is_refused_at_once(tmp_path):
    rows = "image_path,caption\n0.jpg,a\n"
    for data, said in (
        (rows.encode("utf-16"), "text in UTF-16"),
        (rows.encode("utf-32"), "text in UTF-32"),
        (gzip.compress(rows.encode()), "compressed with gzip"),
        (b"PK\x03\x04" + bytes(9), "spreadsheet"),
        (b"PAR1" + bytes(9), "a Parquet file"),
    ):
        (tmp_path / "pairs").write_bytes(data)
        for kind in ("csv", "jsonl"):
            with pytest.raises(ValueError, match=f"{kind}:.*pairs is .*{said}"):
                open_source(f"{kind}:{tmp_path}/pairs")


def test_a_byte_order_mark_before_a_quoted_name(pictures):
    (pictures / "pairs.csv").write_bytes(
        b'\xef\xbb\xbf"image\n_path","image_path",caption\r\n,images/0.jpg,"a\r\nb"\r\n'
    )
    assert_record(open_source(f"csv:{pictures}/pairs.csv")[0], 0, ("a\r\nb",))
    (pictures / "pairs.jsonl").write_bytes(b'\xef\xbb\xbf\r\n{"image": "images/0.jpg", "caption": "a"}\r\n')
    assert reasons(open_source(f"jsonl:{pictures}/pairs.jsonl")) == [None]


def test_an_endless_value_or_line_takes_no_memory(pictures, monkeypatch):
    monkeypatch.setattr(tables, "MAX_CSV_FIELD", 1000)
    monkeypatch.setattr(tables, "MAX_LINE", 1000)
    (pictures / "pairs.csv").write_text(f"image_path,caption\nimages/0.jpg,{'a' * 1001}\n")
    with pytest.raises(ValueError, match="row 1 of .*pairs.csv .* more than 1000"):
        open_source(f"csv:{pictures}/pairs.csv")
    good, long = (json.dumps({"image": "images/0.jpg", "caption": text}) for text in ("a", "a" * 1001))
    (pictures / "pairs.jsonl").write_text(f"{good}\n{long}\n{good}")
    assert reasons(open_source(f"jsonl:{pictures}/pairs.jsonl")) == [None, "not json", None]


def test_paths_that_are_not_utf8_are_bad_records_that_can_be_written(pictures):
    (pictures / "pairs.csv").write_bytes(b"image_path,caption\ncaf\xe9.jpg,a\nimages/0.jpg,b\n")
    (pictures / "pairs.jsonl").write_text('{"image": "\\ud83d.jpg", "caption": "a"}\n{"image": "images/0.jpg"}\n')
    for spec in ("csv:{}/pairs.csv", "jsonl:{}/pairs.jsonl"):
        source = open_source(spec.format(pictures))
        assert reasons(source) == ["missing image", None]
        with pytest.raises(BadRecord) as caught:
            source[0]
        assert caught.value.detail.encode()
    name = os.fsdecode(b"caf\xe9.jpg")
    (pictures / name).write_bytes(encoded(1))  # a file of that name is read
    assert_record(open_source(f"csv:{pictures}/pairs.csv")[0], 1, ("a",))


def dataset(column="image", texts=("a", "b", "c")):
    """Three rows with a Hugging Face image column; one image is broken."""
    images = [encoded(0), encoded(1)[:-300], encoded(2)]
    features = {column: datasets.Image(), "caption": datasets.Value("string"), "n": datasets.Value("int64")}
    rows = {column: [{"bytes": data, "path": None} for data in images], "caption": list(texts), "n": [1, 2, 3]}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def assert_dataset(source):
    assert len(source) == 3 and reasons(source) == [None, "corrupt image", None]
    assert_record(source[2], 2, ("c",))
    assert source.captions(1) == ("b",) and source.key(1) == "row 2"
    assert_record(pickle.loads(pickle.dumps(source))[0], 0, ("a",))


@pytest.mark.parametrize("column", ["image", "jpg"])
def test_saved_data_sets(tmp_path, column):
    dataset(column).save_to_disk(tmp_path / "one")
    assert_dataset(open_source(f"hf:{tmp_path}/one"))
    datasets.DatasetDict({"train": dataset(column), "test": dataset(column)}).save_to_disk(tmp_path / "two")
    assert_dataset(open_source(f"hf:{tmp_path}/two:test"))
    for spec, message in (
        ("two", "expected one of train, test"),
        ("two:val", "expected one of"),
        ("one:x", "remove :x"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(f"hf:{tmp_path}/{spec}")


def test_parquet_of_hugging_face(tmp_path):
    dataset().to_parquet(tmp_path / "a.parquet")
    assert_dataset(open_source(f"parquet:{tmp_path}/a.parquet"))
    assert_dataset(open_source(f"hf:{tmp_path}:train"))
    assert len(open_source(f"hf:{tmp_path}:train[:2]")) == 2


def test_a_rewritten_parquet_file_is_read_again(tmp_path):
    path = tmp_path / "a.parquet"
    dataset().to_parquet(path)
    open_source(f"parquet:{path}")
    dataset(texts=("x", "y", "z")).to_parquet(path)
    os.utime(path, (1, 1))
    assert open_source(f"parquet:{path}").captions(0) == ("x",)


def test_plain_parquet(pictures):
    import pyarrow
    from pyarrow import parquet

    for part in range(2):
        table = {
            "image_bytes": [encoded(0), None],
            "image_path": [None, "images/1.jpg"],
            "captions": [["a", "b"], ["c"]],
        }
        parquet.write_table(pyarrow.table(table), pictures / f"{part}.parquet")
    source = open_source(f"parquet:{pictures}")
    assert len(source) == 4
    assert_record(source[2], 0, ("a", "b"))
    assert_record(source[1], 1, ("c",))
    assert len(open_source(f"parquet:{pictures}/{{0,1}}.parquet")) == 4


def test_wrong_utf8_in_parquet_is_a_bad_record(pictures):
    import pyarrow
    from pyarrow import parquet

    raw = pyarrow.array([b"fine", b"\xff\xfe", b"fine"], pyarrow.binary()).view(pyarrow.string())
    table = pyarrow.table({"image_path": ["images/0.jpg"] * 3, "caption": raw})
    parquet.write_table(table, pictures / "a.parquet")
    assert reasons(open_source(f"parquet:{pictures}/a.parquet")) == [None, "not utf-8", None]


def test_missing_empty_and_foreign_sources_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "blank.jsonl").write_text("\n \n")
    (tmp_path / "names.csv").write_text("image_path,caption\n")
    (tmp_path / "other.csv").write_text("url,caption\nhttp://a,b\n")
    (tmp_path / "broken.csv").write_text('"image" path,caption\n')
    (tmp_path / "blank.csv").write_text("\n\n")
    (tmp_path / "spaces.csv").write_text("image_path,caption, long_caption\na.jpg,b,c\n")
    (tmp_path / "capitals.csv").write_text("image_path,caption,Caption\na.jpg,b,c\n")
    (tmp_path / "texts.csv").write_text("image_path,label\na.jpg,b\n")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    for spec, message in (
        ("jsonl:{}/none.jsonl", "there is no file"),
        ("jsonl:{}/empty.jsonl", "is empty"),
        ("jsonl:{}/blank.jsonl", "blank.jsonl has only blank lines"),
        ("csv:{}/none.csv", "there is no file"),
        ("csv:{}/names.csv", "names.csv has no rows"),
        ("csv:{}/other.csv", "no image in the columns url, caption; expected one of image, "),
        ("csv:{}/broken.csv", "broken.csv.* expected column names"),
        ("csv:{}/blank.csv", "no image in the columns none"),
        ("csv:{}/spaces.csv", "' long_caption' .* rename it to long_caption"),
        ("csv:{}/capitals.csv", "'Caption' .* rename it to caption"),
        ("csv:{}/texts.csv", "no caption in the columns"),
        ("parquet:{}/a.parquet", "a.parquet is not .* Parquet file"),
        ("parquet:{}/b.parquet", "1 of 1 files are missing"),
        ("hf:{}/none:train", "cannot open it"),
        ("hf:{}", "which split"),
        ("hf:a:b:c:d", r"expected hf:DIRECTORY"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(spec.format(tmp_path))
