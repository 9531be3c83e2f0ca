"""Tables and shards as collections of pictures: captions are not needed here, and a bad row is one failure."""

import csv
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from vladva_clip import cli
from vladva_clip.bulk.collections import open_table
from vladva_clip.index import store

PLACES = [f"pictures/{number}.png" for number in range(3)]


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [["image_path"], *([place] for place in (*PLACES, "pictures/7.png"))]
        )


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"image_path": place}) + "\n" for place in (*PLACES, "pictures/7.png")))


def write_parquet(path: Path) -> None:
    images = [{"bytes": Path(place).read_bytes(), "path": None} for place in (*PLACES, "pictures/7.png")]
    pyarrow.parquet.write_table(pyarrow.table({"image": images}), path)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for place in (*PLACES, "pictures/7.png"):
            data = Path(place).read_bytes()
            member = tarfile.TarInfo(Path(place).name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


WRITERS = {
    ".csv": write_csv,
    ".tsv": write_csv,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
    ".tar": write_tar,
}


def test_a_glob_of_shards(folder):
    for name in ("s1.tar", "s0.tar"):
        write_tar(Path(name))
    assert cli.main(["embed", "s*.tar", "--out", "a.npz", "--model", "vladva-tiny", "--workers", "0"]) == 1  # 7.png
    assert [name.split("#")[0] for name in store.load(Path("a.npz")).names] == ["s0.tar"] * 3 + ["s1.tar"] * 3


def test_the_lost_end_of_a_shard_is_a_failure(folder, capsys):
    write_tar(Path("t.tar"))
    whole = Path("t.tar").read_bytes()
    Path("t.tar").write_bytes(whole[: len(whole) // 3])
    assert cli.main(["embed", "t.tar", "--out", "a.npz", "--model", "vladva-tiny", "--workers", "0"]) == 1
    assert "t.tar: ends early" in capsys.readouterr().err
    assert any("ends early" in line for line in Path("a.npz.failures.jsonl").read_text().splitlines())
    assert 0 < len(store.load(Path("a.npz")).names) < 4


WIDE = [pytest.param(suffix, marks=pytest.mark.wide) for suffix in WRITERS if suffix not in (".csv", ".parquet")]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", *WIDE])
def test_pictures_without_captions_are_embedded(folder, tiny, suffix):
    WRITERS[suffix](Path(f"t{suffix}"))
    assert cli.main(["embed", f"t{suffix}", "--out", "a.npz"]) == 1
    assert cli.main(["embed", *PLACES, "--out", "b.npz"]) == 0
    a, b = store.load(Path("a.npz")), store.load(Path("b.npz"))
    assert abs(a.features - b.features).max() < 1e-6
    assert all(name.startswith(f"t{suffix}#") for name in a.names)
    (line,) = Path("a.npz.failures.jsonl").read_text().splitlines()
    assert json.loads(line)["name"].startswith(f"t{suffix}#")


def test_a_table_without_pictures_is_refused(folder):
    Path("t.csv").write_text("caption\na cat\n")
    with pytest.raises(ValueError, match=r"t\.csv: no image in the columns caption"):
        open_table("t.csv", os.getcwd())


def test_a_wrong_caption_does_not_cost_the_picture(folder, capsys):
    """Captions are not needed here."""
    rows = [{"image_path": PLACES[0], "caption": {"text": 5}}, {"image_path": PLACES[1], "caption": "a cat"}]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with tarfile.open("t.tar", "w") as tar:
        for name, data in (("a.png", Path(PLACES[0]).read_bytes()), ("a.txt", b"\xff\xfe")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert embed("t.jsonl", "t.tar") == 0
    assert store.load(Path("a.npz")).names == ["t.jsonl#line 1", "t.jsonl#line 2", "t.tar#t.tar/a"]


def test_a_table_that_can_not_be_opened_is_one_failure(folder, capsys):
    """Beside others; alone, there is nothing to do."""
    write_csv(Path("t.csv"))
    Path("bad.tar").write_bytes(b"no archive")
    Path("bad.csv").write_text("caption\na cat\n")
    assert embed("bad.tar", "t.csv", "bad.csv", "missing.jsonl", *PLACES) == 1
    assert len(store.load(Path("a.npz")).names) == 6
    failed = [json.loads(line) for line in Path("a.npz.failures.jsonl").read_text().splitlines()]
    assert [one["name"] for one in failed] == ["bad.tar", "bad.csv", "missing.jsonl", "t.csv#row 4"]
    assert "no image in the columns caption" in failed[1]["error"]
    assert embed("bad.csv", "--overwrite") == 2
    assert "there is nothing to read: bad.csv: no image in the columns caption" in capsys.readouterr().err


def embed(*words: str) -> int:
    return cli.main(["embed", *words, "--out", "a.npz", "--model", "vladva-tiny", "--workers", "0"])
