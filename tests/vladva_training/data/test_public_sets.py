"""Public data sets in their own form, with our own pictures and texts: CC3M's tars and DreamLIP's table, joined by the
script of docs/data.md, and LLaVA-ReCap's Parquet files."""

import csv
import json
import re
import runpy
from pathlib import Path

import datasets
import pytest

from tests.support.training.pairs import encoded, pixels_of, write_tar
from vladva_clip.factory import get_tokenizer
from vladva_clip.records.fields import row_captions
from vladva_clip.records.records import BadRecord
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.specs import open_source

DOCS = Path(__file__).parents[3] / "docs" / "data.md"
LONG = "a small red circle on the left of a large blue square, and\na green dog above a cat that looks at a fish " * 2
DREAMLIP = ["Image Path", "raw_caption", "shortIB_captions", "longIB_captions", "shortSV_captions"]
DREAMLIP += ["longSV_captions", "shortLLA_captions", "longLLA_captions"]


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture(scope="module")
def splitter():
    return CaptionSplitter(get_tokenizer("vladva-tiny"))


def url(number: int) -> str:
    return f"https://example.org/{number}.jpg?size=m,l"


def cc3m_files(first: int, count: int) -> list[tuple[str, bytes]]:
    """Samples as img2dataset writes them, the three files of each one behind another."""
    files = []
    for number in range(first, first + count):
        about = {"caption": f"picture {number}", "url": url(number), "key": f"{number:09d}", "status": "success"}
        about |= {"error_message": None, "width": 96, "height": 64, "exif": "{}", "sha256": "0" * 64}
        files += [(f"{number:09d}.jpg", encoded(number)), (f"{number:09d}.json", json.dumps(about).encode())]
        files += [(f"{number:09d}.txt", f"picture {number}".encode())]
    return files


@pytest.fixture
def downloaded(tmp_path, monkeypatch) -> Path:
    """Two tars of three samples, and a table with long captions for all but picture 4."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw/cc3m").mkdir(parents=True)
    (tmp_path / "raw/dreamlip").mkdir()
    for shard in range(2):
        write_tar(tmp_path / f"raw/cc3m/cc3m-train-{shard:04d}.tar", cc3m_files(3 * shard, 3))
    with open("raw/dreamlip/cc3m_3long_3short_1raw_captions_url.csv", "w", encoding="utf-8", newline="") as table:
        rows = csv.DictWriter(table, DREAMLIP)
        rows.writeheader()
        for number in (5, 3, 2, 1, 0):
            texts = dict.fromkeys(DREAMLIP[1:], "of another model")
            rows.writerow({**texts, "Image Path": url(number), "longSV_captions": f"Picture {number}: {LONG}</s>"})
    return tmp_path


def run_script(name: str) -> None:
    """Run a script that the page prints."""
    (code,) = re.findall(rf"```python\n(# {name}.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    Path(name).write_text(code, encoding="utf-8")
    runpy.run_path(name)


def test_cc3m_with_dreamlips_long_captions(downloaded, splitter):
    run_script("add_long.py")
    source = open_source("wds:data/cc3m-long/cc3m-train-{0000..0001}.tar")
    assert len(source) == 6
    for number in range(6):
        record, split = source[number], splitter.split(source.captions(number))
        assert split.short_texts == (f"picture {number}",)
        assert (record.image.tobytes() == pixels_of(encoded(number)).tobytes()) and not split.too_long
        if number == 4:
            assert not split.long
        else:
            (long,) = (text for text in record.captions if text != f"picture {number}")
            assert long == f"Picture {number}: {LONG}".strip() and len(split.long) == 1


def test_the_script_continues_where_it_was_interrupted(downloaded):
    run_script("add_long.py")
    folder = Path("data/cc3m-long")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == ["cc3m-train-0000.tar", "cc3m-train-0001.tar"]
    kept = (folder / "cc3m-train-0000.tar").stat().st_mtime_ns
    (folder / "cc3m-train-0001.tar").rename(folder / "cc3m-train-0001.unfinished")
    run_script("add_long.py")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (folder / "cc3m-train-0000.tar").stat().st_mtime_ns == kept


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def test_llava_recaps_parquet_files(tmp_path, splitter):
    """Features as its card lists them: id, image, conversations (from, value), data_source."""
    text = datasets.Value("string")
    features = {"id": text, "image": datasets.Image(), "conversations": [{"from": text, "value": text}]}
    features = datasets.Features({**features, "data_source": text})
    (tmp_path / "recap").mkdir()
    for part in range(2):
        rows = [
            {
                "id": f"{number:09d}",
                "image": {"bytes": encoded(number), "path": f"{number:09d}.jpg"},
                "conversations": turns("<image>\nDescribe it.", f"Picture {number}: {LONG}"),
                "data_source": "cc3m",
            }
            for number in range(2 * part, 2 * part + 2)
        ]
        rows = datasets.Dataset.from_list(rows, features=features)
        rows.to_parquet(str(tmp_path / f"recap/train-{part:05d}-of-00281.parquet"))
    for spec in (f"parquet:{tmp_path}/recap/train-{{00000..00001}}-of-00281.parquet", f"hf:{tmp_path}/recap:train"):
        source = open_source(spec)
        assert len(source) == 4
        for number in range(4):
            assert source[number].captions == source.captions(number) == (f"Picture {number}: {LONG}",)
            assert source[number].image.tobytes() == pixels_of(encoded(number)).tobytes()
            split = splitter.split(source.captions(number))
            assert len(split.long) == 1 and not split.short


def test_a_conversation_in_json_and_in_a_shard(tmp_path):
    row = {"image_path": "a.png", "conversations": turns("What?", "a dog")}
    assert row_captions(row, "line 1") == ("a dog",)
    assert row_captions({**row, "conversations": json.dumps(row["conversations"])}, "line 1") == ("a dog",)
    write_tar(tmp_path / "a.tar", {"0.jpg": encoded(), "0.json": json.dumps(row).encode()})
    assert open_source(f"wds:{tmp_path}/a.tar").captions(0) == ("a dog",)


@pytest.mark.parametrize("empty", [None, [], "[]", "null", float("nan"), turns("What?", "none")])
def test_an_empty_conversation_is_no_caption(empty):
    assert row_captions({"conversations": empty}, "line 1") == ()


@pytest.mark.parametrize(
    "other", [turns("What?"), turns("What?", "a dog", "Where?", "there"), turns("What?", "a dog")[::-1], ["a dog"], 5]
)
def test_a_conversation_that_is_no_single_answer_is_a_bad_record(other):
    with pytest.raises(BadRecord) as caught:
        row_captions({"conversations": other}, "line 1")
    assert caught.value.reason == "wrong type" and "conversations holds" in caught.value.detail


def test_conversations_beside_captions_are_ignored(tmp_path):
    row = {"caption": "a cat", "conversations": turns("What?", "a dog", "Where?", "there")}
    assert row_captions(row, "line 1") == ("a cat",)
    assert row_captions({**row, "caption": None}, "line 1") == ()
    table = datasets.Dataset.from_list([{**row, "image": encoded()}])
    table.to_parquet(str(tmp_path / "a.parquet"))
    assert open_source(f"parquet:{tmp_path}/a.parquet").captions(0) == ("a cat",)
