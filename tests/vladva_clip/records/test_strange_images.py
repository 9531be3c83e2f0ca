"""An EPS named as a picture in every kind of source: a bad record; others are read, and no program starts."""

import base64
import json

import datasets
import pytest
from PIL import Image

from tests.support.pictures import strange
from tests.support.samples import picture
from tests.support.training.pairs import encoded, write_tar
from vladva_clip.records.images import decode_image
from vladva_clip.records.records import BadRecord
from vladva_training.data.specs import open_source

EPS = strange.EPS


@pytest.fixture(autouse=True)
def mark(tmp_path):
    """A Ghostscript for the tests that must never be started."""
    with strange.ghostscript(tmp_path) as mark:
        yield mark
        assert not mark.exists()


def jsonl(folder) -> str:
    (folder / "0.jpg").write_bytes(encoded(0))
    (folder / "1.jpg").write_bytes(EPS)
    rows = [{"image": f"{number}.jpg", "caption": "a"} for number in range(2)]
    return write_rows(folder, rows)


def write_rows(folder, rows) -> str:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{folder}/a.jsonl"


def base64_rows(folder) -> str:
    rows = [{"image_bytes": base64.b64encode(data).decode(), "caption": "a"} for data in (encoded(0), EPS)]
    return write_rows(folder, rows)


def csv(folder) -> str:
    jsonl(folder)
    (folder / "a.csv").write_text("image_path,caption\n0.jpg,a\n1.jpg,a\n")
    return f"csv:{folder}/a.csv"


def tar(folder) -> str:
    files = {"0.jpg": encoded(0), "0.txt": b"a", "1.jpg": EPS, "1.txt": b"a"}
    return f"wds:{write_tar(folder / 'a.tar', files)}"


def rows(**further) -> datasets.Dataset:
    images = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate((encoded(0), EPS))]
    features = {"image": datasets.Image(), "caption": datasets.Value("string")}
    data = {"image": images, "caption": ["a", "a"]}
    for name, (feature, column) in further.items():
        features[name], data[name] = feature, column
    return datasets.Dataset.from_dict(data, features=datasets.Features(features))


def saved(folder) -> str:
    rows().save_to_disk(folder / "saved")
    return f"hf:{folder}/saved"


def parquet(folder) -> str:
    rows().to_parquet(folder / "a.parquet")
    return f"parquet:{folder}/a.parquet"


def image_folder(folder) -> str:
    jsonl(folder)
    (folder / "a.jsonl").unlink()
    (folder / "metadata.csv").write_text("file_name,caption\n0.jpg,a\n1.jpg,a\n")
    return f"hf:{folder}:train"


@pytest.mark.parametrize(
    "write", [jsonl, base64_rows, csv, tar, saved, parquet, image_folder], ids=lambda f: f.__name__
)
def test_in_each_kind_of_source(tmp_path, write):
    (tmp_path / "data").mkdir()
    source = open_source(write(tmp_path / "data"))
    assert source[0].image.size == picture(0).size and source.captions(1) == ("a",)
    with pytest.raises(BadRecord, match="EPS.*JPEG, PNG") as caught:
        source[1]
    assert caught.value.reason == "image format"


def test_unused_columns_are_not_decoded(tmp_path, mark):
    """`datasets` decodes each image of a row when it hands the row out, also within lists."""
    nested = datasets.Sequence(datasets.Image())
    eps = {"bytes": EPS, "path": "1.jpg"}
    data = rows(views=(nested, [[], [eps]]), thumbnail=(datasets.Image(), [eps, eps]))
    data.save_to_disk(tmp_path / "saved")
    source = open_source(f"hf:{tmp_path}/saved")
    assert source[0].image.size == picture(0).size
    with pytest.raises(BadRecord, match="image format"):
        source[1]


def test_an_image_opened_by_a_users_own_source(tmp_path):
    (tmp_path / "a.jpg").write_bytes(EPS)
    with pytest.raises(BadRecord, match="image format"):
        decode_image(Image.open(tmp_path / "a.jpg"), "k")


@pytest.mark.parametrize("place", ["/dev/zero", "hole.jpg"])
def test_paths_to_endless_files(tmp_path, place):
    with open(tmp_path / "hole.jpg", "wb") as file:
        file.truncate(1 << 40)
    source = open_source(write_rows(tmp_path, [{"image": place, "caption": "a"}]))
    with pytest.raises(BadRecord, match="missing image|image too large"):
        source[0]


def test_a_small_file_that_claims_a_huge_picture(tmp_path):
    with pytest.raises(BadRecord, match="image too large"):
        decode_image(strange.png(60_000, 60_000), "k")
