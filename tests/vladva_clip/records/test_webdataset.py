import json
import os
import pickle
import shutil

import numpy as np
import pytest

from tests.support import damage
from tests.support.training.pairs import encoded, pixels_of, write_tar
from vladva_clip.records import tar_index
from vladva_clip.records.records import BadRecord
from vladva_training.data.specs import open_source


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def shard_files(first, count=3):
    """`count` samples as img2dataset writes them."""
    files = {}
    for number in range(first, first + count):
        files[f"{number:05d}.jpg"] = encoded(number)
        files[f"{number:05d}.json"] = json.dumps({"caption": f"picture {number}", "width": 96}).encode()
        files[f"{number:05d}.txt"] = f"picture {number}".encode()
    return files


def reason(source, index):
    try:
        source[index]
    except BadRecord as error:
        return error.reason
    return None


def test_samples_of_all_shards_in_order(tmp_path):
    for shard in range(3):
        write_tar(tmp_path / f"{shard:05d}.tar", shard_files(shard * 3))
    source = open_source(f"wds:{tmp_path}/{{00000..00002}}.tar")
    assert len(source) == 9 and source.name.startswith("wds:")
    for index in (8, 0, 4, 3):
        record = source[index]
        assert record.key == f"{index // 3:05d}.tar/{index:05d}"
        assert record.captions == source.captions(index) == (f"picture {index}",)
        assert np.array_equal(np.asarray(record.image), pixels_of(encoded(index)))
    assert [source[i].key for i in range(9)] == [open_source(f"wds:{tmp_path}")[i].key for i in range(9)]
    assert pickle.loads(pickle.dumps(source))[5].captions == ("picture 5",)
    with pytest.raises(IndexError):
        source[9]


def test_every_way_to_store_captions(tmp_path):
    fields = {"caption": "a", "captions": ["b", "c"], "short_caption": "d", "long_caption": None}
    fields |= {"hard_negatives": ["x", "y"], "width": 3}
    files = {"./dir/s.1.PNG": encoded(), "t.webp": encoded(0, "WEBP"), "t.txt": "ä".encode()}
    files |= {"t.json": json.dumps(fields).encode(), "t.long_caption.txt": b"e", "t.cls": b"7"}
    write_tar(tmp_path / "a.tar", {**files, "u.jpeg": encoded(), "u.short_caption": "\ufeffz".encode()})
    source = open_source(f"wds:{tmp_path}/a.tar")
    record = source[1]
    assert set(record.captions) == {"ä", "a", "b", "c", "d", "e"} and record.hard_negatives == ("x", "y")
    assert source[2].captions == ("z",)
    assert reason(source, 0) == "missing image"  # s: its extension is "1.png", as WebDataset reads it


def test_files_of_a_sample_need_not_be_adjacent(tmp_path):
    pictures = {f"{n}.jpg": encoded(n) for n in range(3)}
    padding = {"big.bin": bytes(300_000)}
    write_tar(tmp_path / "a.tar", pictures | padding | {f"{n}.txt": f"picture {n}".encode() for n in range(3)})
    source = open_source(f"wds:{tmp_path}/a.tar")
    assert [source[n].captions for n in range(3)] == [(f"picture {n}",) for n in range(3)]
    assert np.array_equal(np.asarray(source[2].image), pixels_of(encoded(2)))


def test_one_seek_per_sample(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", shard_files(0))
    source = open_source(f"wds:{tmp_path}/a.tar")
    monkeypatch.setattr(tar_index.tarfile, "open", None)  # the tar is not read again
    opened = []
    real = type(tmp_path).open

    def counted(self, *args, **kwargs):
        opened.append(self.name)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "open", counted)
    source[2]
    assert opened == ["a.tar"]


def test_the_index_is_stored_beside_the_shard_and_used(tmp_path, monkeypatch):
    tar = write_tar(tmp_path / "a.tar", shard_files(0))
    open_source(f"wds:{tar}")
    kept = tmp_path / "a.tar.index.json"
    content = json.loads(kept.read_text())
    assert content["size"] == tar.stat().st_size and content["keys"] == ["00000", "00001", "00002"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar", kept.name]  # nothing half-written is left
    monkeypatch.setattr(tar_index, "_build", None)
    assert open_source(f"wds:{tar}")[0].key == "a.tar/00000"


@pytest.mark.parametrize("harm", damage.ANY.values(), ids=damage.ANY)
def test_a_damaged_index_is_rebuilt(tmp_path, harm):
    tar = write_tar(tmp_path / "a.tar", shard_files(0))
    open_source(f"wds:{tar}")
    harm(tmp_path / "a.tar.index.json")
    assert open_source(f"wds:{tar}")[1].captions == ("picture 1",)
    assert (tmp_path / "a.tar.index.json").is_file()


@pytest.mark.parametrize("change", ["keys", "offset", "length", "size"])
def test_an_index_of_another_shard_is_not_used(tmp_path, change):
    tar = write_tar(tmp_path / "a.tar", shard_files(0))
    open_source(f"wds:{tar}")
    kept = tmp_path / "a.tar.index.json"
    content = json.loads(kept.read_text())
    content[change] = content[change] + 1 if change == "size" else content[change][::-1]
    kept.write_text(json.dumps(content, separators=(",", ":")))
    source = open_source(f"wds:{tar}")
    assert [source[n].captions for n in range(3)] == [("picture 0",), ("picture 1",), ("picture 2",)]


def test_another_shard_of_the_same_size_and_time(tmp_path):
    """Tools that write shards reproducibly give all of them the same time, and tars are padded to a few sizes."""
    first, second = (write_tar(tmp_path / name / "a.tar", shard_files(number)) for name, number in (("x", 0), ("y", 5)))
    for tar in (first, second):
        os.utime(tar, ns=(1, 1))
    assert first.stat().st_size == second.stat().st_size
    open_source(f"wds:{first}")
    index = first.with_name("a.tar.index.json")
    index.rename(second.with_name(index.name))
    assert open_source(f"wds:{second}")[0].captions == ("picture 5",)


@pytest.mark.parametrize("change", ["size", "time", "half", "format"])
def test_a_stale_or_broken_index_is_rebuilt(tmp_path, change):
    tar = write_tar(tmp_path / "a.tar", shard_files(0))
    open_source(f"wds:{tar}")
    kept = tmp_path / "a.tar.index.json"
    if change == "size":
        write_tar(tar, shard_files(5, count=4))
    elif change == "time":
        write_tar(tar, shard_files(5))
        os.utime(tar, ns=(1, 1))
    elif change == "half":
        kept.write_text(kept.read_text()[:50])
    else:
        kept.write_text(json.dumps({**json.loads(kept.read_text()), "format": 0}))
    source = open_source(f"wds:{tar}")
    assert source[0].captions == ("picture 5" if change in ("size", "time") else "picture 0",)
    assert json.loads(kept.read_text())["format"] == tar_index.FORMAT


def test_where_the_folder_cannot_be_written_the_index_goes_to_the_cache(tmp_path, cache_home, monkeypatch):
    tar = write_tar(tmp_path / "data" / "a.tar", shard_files(0))
    (tmp_path / "data" / "a.tar.index.json").mkdir()  # root can write anywhere, so a folder blocks the file
    assert open_source(f"wds:{tar}")[1].captions == ("picture 1",)
    (kept,) = (cache_home / "vladva-clip" / "tar-index").iterdir()
    assert kept.name.endswith(".index.json")
    monkeypatch.setattr(tar_index, "_build", None)
    assert open_source(f"wds:{tar}")[1].captions == ("picture 1",)
    shutil.rmtree(cache_home)


def test_without_a_place_for_the_index_it_is_rebuilt_each_time(tmp_path, cache_home, caplog):
    tar = write_tar(tmp_path / "a.tar", shard_files(0))
    (tmp_path / "a.tar.index.json").mkdir()
    cache_home.write_text("a file in the way")
    assert len(open_source(f"wds:{tar}")) == 3
    assert "a.tar.index.json" in caplog.text and "each time" in caplog.text


def test_bad_samples_have_different_reasons(tmp_path):
    picture = encoded()
    files = {
        "0.jpg": picture[:-300],
        "0.txt": b"a",
        "1.jpg": picture,
        "2.txt": b"a",
        "3.jpg": picture,
        "3.txt": b"\xff",
    }
    files |= {"4.jpg": picture, "4.json": b"{", "5.jpg": picture, "5.json": b"[1]", "6.jpg": b"", "6.txt": b"a"}
    files |= {"7.jpg": picture, "7.json": b'{"caption": 5}', "8.jpg": picture, "8.json": b'{"caption": "\\ud83d"}'}
    source = open_source(f"wds:{write_tar(tmp_path / 'a.tar', files)}")
    assert source[1].captions == ()  # such an image can get its captions from `vladva-train caption`
    expected = ["corrupt image", None, "missing image", "not utf-8", "not json", "not json"]
    expected += ["corrupt image", "wrong type", "not utf-8"]
    assert [reason(source, index) for index in range(len(source))] == expected


@pytest.mark.parametrize("cut", [100, 700, 1500, 4000])
def test_a_shard_that_ends_early_keeps_its_complete_samples(tmp_path, cut, caplog):
    tar = write_tar(tmp_path / "a.tar", shard_files(0, 8))
    last = open_source(f"wds:{tar}").indices[0].members(7)[-1]
    with tar.open("r+b") as file:
        file.truncate(last.offset + last.size - cut)
    for _ in range(2):  # the second time from the cached index
        caplog.clear()
        source = open_source(f"wds:{tar}")
        assert "ends early" in caplog.text
        whole = 0
        for index in range(len(source)):
            try:
                captions = source[index].captions
                assert captions in ((), (f"picture {index}",))
                whole += bool(captions)
            except BadRecord as error:
                assert error.reason in ("truncated shard", "corrupt image")
        assert whole >= 5 and len(source) <= 8


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path, caplog):
    tar = write_tar(tmp_path / "a.tar", shard_files(0, 8))
    third = open_source(f"wds:{tar}").indices[0].members(3)[0]
    with tar.open("r+b") as file:
        file.seek(third.offset - 400)
        file.write(b"damage" * 10)
    os.utime(tar, ns=(1, 1))
    assert len(open_source(f"wds:{tar}")) == 3 and "are lost" in caplog.text


def test_a_shard_that_shrinks_during_a_run_yields_bad_records(tmp_path):
    tar = write_tar(tmp_path / "a.tar", shard_files(0))
    source = open_source(f"wds:{tar}")
    with tar.open("r+b") as file:
        file.truncate(1000)
    assert reason(source, 2) == "truncated shard"


def test_the_case_of_a_suffix_does_not_matter(tmp_path):
    for number, name in enumerate(("0.tar", "1.TAR")):
        write_tar(tmp_path / name, shard_files(number, 1))
    source = open_source(f"wds:{tmp_path}")
    assert [source[index].key for index in range(len(source))] == ["0.tar/00000", "1.TAR/00001"]


def test_shards_of_one_name_in_two_folders_have_different_keys(tmp_path):
    tars = [write_tar(tmp_path / folder / "0.tar", shard_files(0)) for folder in "ab"]
    source = open_source(f"wds:{tars[0]}::{tars[1]}")
    assert [source[0].key, source[3].key] == ["a/0.tar/00000", "b/0.tar/00000"]


def test_missing_empty_and_foreign_shards_are_refused(tmp_path):
    write_tar(tmp_path / "0.tar", shard_files(0))
    write_tar(tmp_path / "texts" / "0.tar", {"a.txt": b"a"})
    write_tar(tmp_path / "none" / "0.tar", {})
    (tmp_path / "zip.tar").write_bytes(b"PK\x03\x04" + bytes(2000))
    (tmp_path / "folder").mkdir()
    for spec, message in (
        (f"wds:{tmp_path}/{{0..3}}.tar", "3 of 4 files are missing: .*1.tar"),
        (f"wds:{tmp_path}/folder", r"holds no \*.tar files"),
        (f"wds:{tmp_path}/texts", "no image in 1 shards with 1 samples"),
        (f"wds:{tmp_path}/none", "no image in 1 shards with 0 samples"),
        (f"wds:{tmp_path}/zip.tar", "not an uncompressed tar"),
        (f"wds:{tmp_path}/{{0..3.tar", "expected braces"),
        (f"wds:{tmp_path}/{{0..0}}.tar::{tmp_path}/none/../0.tar", "0.tar is named twice"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(spec)
