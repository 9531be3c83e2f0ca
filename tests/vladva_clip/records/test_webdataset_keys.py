"""Keys that repeat in a shard, pictures that repeat in a sample: nothing is mixed up or guessed."""

import os

import numpy as np
import pytest

from tests.support.training.pairs import encoded, pixels_of, write_tar
from vladva_clip.records.records import BadRecord
from vladva_training.data.specs import open_source

PICTURE, OTHER = encoded(0), encoded(1)


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pairs_of(*names, start=0):
    """The members of several samples: a picture by its number, and a caption."""
    members = []
    for number, (key, caption) in enumerate(names, start):
        members += [(f"{key}.jpg", encoded(number)), (f"{key}.txt", caption.encode())]
    return members


def records(tar):
    """(number of the picture, captions) of each record, or why it is bad."""
    source, pictures, found = open_source(f"wds:{tar}"), [pixels_of(encoded(n)).tobytes() for n in range(4)], []
    for index in range(len(source)):
        try:
            record = source[index]
            assert record.captions == source.captions(index)
            found.append((pictures.index(np.asarray(record.image).tobytes()), *record.captions))
        except BadRecord as error:
            found.append(error.reason)
    assert len({source._find(index)[2] for index in range(len(source))}) == len(source)  # each has its own key
    return found


def test_concatenated_shards_keep_all_their_samples(tmp_path):
    halves = [pairs_of(("0", "a"), ("1", "b")), pairs_of(("0", "c"), ("1", "d"), start=2)]
    expected = [(0, "a"), (2, "c"), (1, "b"), (3, "d")]
    assert records(write_tar(tmp_path / "appended.tar", [*halves[0], *halves[1]])) == expected
    for name, members, found in (
        ("whole", halves, expected),
        ("single", [half[:2] for half in halves], [(0, "a"), (2, "c")]),
    ):
        parts = [write_tar(tmp_path / "part.tar", half).read_bytes() for half in members]
        (tmp_path / f"{name}.tar").write_bytes(b"".join(parts))  # as `cat` does; tarfile stops at the end of the first
        assert records(tmp_path / f"{name}.tar") == found


def test_a_key_that_looks_like_a_further_sample_stays_its_own(tmp_path):
    members = pairs_of(("0", "a"), ("0#2", "b"), ("0", "c"))
    assert records(write_tar(tmp_path / "a.tar", members)) == [(0, "a"), (2, "c"), (1, "b")]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("0.jpg", PICTURE), ("0.txt", b"a"), ("0.jpg", OTHER), ("0.txt", b"b")], "duplicate key"),
        ([("0.jpg", PICTURE), ("0.txt", b"a"), ("0.png", OTHER), ("0.txt", b"b")], "duplicate key"),
        ([("0.jpg", PICTURE), ("1.jpg", OTHER), ("0.txt", b"a"), ("0.txt", b"b")], "duplicate key"),
        ([("0.jpg", PICTURE), ("1.jpg", OTHER), ("0.jpg", OTHER), ("0.txt", b"a")], "duplicate key"),
        ([("0.jpg", PICTURE), ("0.txt", b"a"), ("1.jpg", OTHER), ("0.jpg", OTHER)], "duplicate key"),
        ([("0.jpg", PICTURE), ("0.TXT", b"a"), ("0.txt", b"b")], "duplicate key"),
        ([("0.jpg", PICTURE), ("0.txt", b"a"), ("0.png", OTHER)], "several images"),
        ([("0.png", PICTURE), ("1.jpg", OTHER), ("0.jpg", OTHER), ("0.txt", b"a")], "several images"),
        ([("0.jpg", PICTURE), ("0.mask.png", OTHER), ("0.seg.jpg", OTHER), ("0.txt", b"a")], (0, "a")),
        ([("a/0.jpg", PICTURE), ("a/0.txt", b"a"), ("b/0.jpg", OTHER), ("b/0.txt", b"b")], (0, "a")),
    ],
)
def test_no_picture_gets_the_caption_of_another_sample(tmp_path, members, expected):
    tar = write_tar(tmp_path / "a.tar", [*members, ("9.jpg", PICTURE), ("9.txt", b"whole")])
    found = records(tar)
    assert found[0] == expected and found[-1] == (0, "whole")  # a bad sample does not affect others
    if isinstance(expected, str):
        with pytest.raises(BadRecord, match=expected):
            open_source(f"wds:{tar}").captions(0)  # so that it is noticed before a run


def test_garbage_after_a_tar_is_warned_about(tmp_path, caplog):
    tar = write_tar(tmp_path / "a.tar", pairs_of(("0", "a")))
    tar.write_bytes(tar.read_bytes() + b"junk" * 500)
    assert records(tar) == [(0, "a")] and "ends early" in caplog.text


def test_names_that_are_not_utf8_are_different_keys(tmp_path):
    names = [os.fsdecode(name) for name in (b"caf\xe9", b"caf\xe8")]
    tar = write_tar(tmp_path / os.fsdecode(b"\xe9.tar"), pairs_of(*((name, name[:3]) for name in names)))
    source = open_source(f"wds:{tar}")
    keys = [source[index].key for index in range(2)]
    assert keys == ["\\udce9.tar/caf\\xe9", "\\udce9.tar/caf\\xe8"] and "".join(keys).encode()


def test_json_that_is_nested_too_deeply_is_a_bad_record(tmp_path):
    assert records(write_tar(tmp_path / "a.tar", {"0.jpg": PICTURE, "0.json": b'{"a":' * 100_000})) == ["not json"]
