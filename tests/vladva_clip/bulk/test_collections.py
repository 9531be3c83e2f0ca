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
