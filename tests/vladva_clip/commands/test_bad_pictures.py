"""A folder with every kind of bad picture, in every command: what can be read is answered, each other one is named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.samples import picture
from vladva_clip import cli

FAILURES = ("--failures", "failed.jsonl")
COMMANDS = {
    "classify": ("--labels", "a,b", *FAILURES),
    "similarity": ("--text", "a", *FAILURES),
    "caption": ("--max-new-tokens", "2", *FAILURES),
    "embed": ("--out", "index.npz"),
}


def strange(folder: Path) -> set[str]:
    """Write pictures of unusual kinds that can be read; returns their names."""
    picture(0).convert("CMYK").save(folder / "cmyk.jpg")
    palette = picture(1).quantize(8)
    palette.save(folder / "palette.png", transparency=0)
    Image.fromarray(np.linspace(0, 65535, 4096, dtype=np.uint16).reshape(64, 64)).save(folder / "sixteen.png")
    picture(2).save(folder / "animated.gif", save_all=True, append_images=[picture(3)])
    turned = picture(4)
    exif = turned.getexif()
    exif[274] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    picture(5).save(folder / "two\nlines.jpg")
    (folder / os.fsdecode(b"\xff\xfe.jpg")).write_bytes((folder / "cmyk.jpg").read_bytes())
    return {path.name for path in folder.iterdir()}


def bad(folder: Path) -> set[str]:
    """Write what can't be read; returns their names."""
    before = {path.name for path in folder.iterdir()}
    picture(0).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:300])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("hello")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    os.mkfifo(folder / "pipe.jpg")
    if os.geteuid():  # root may read everything
        (folder / "locked.jpg").write_bytes((folder / "cmyk.jpg").read_bytes())
        (folder / "locked.jpg").chmod(0)
    return {path.name for path in folder.iterdir()} - before


@pytest.fixture
def mixed(tmp_path, monkeypatch) -> tuple[set[str], set[str]]:
    """The names of readable and of unreadable pictures in the folder `mixed` of the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixed").mkdir()
    names = strange(tmp_path / "mixed"), bad(tmp_path / "mixed")
    (tmp_path / "mixed/folder.jpg").mkdir()  # an empty folder, whatever its name
    return names


@pytest.mark.parametrize("command", COMMANDS)
def test_one_bad_picture_costs_no_other(command, mixed, capsys):
    good, wrong = mixed
    assert cli.main([command, "mixed", "--model", "vladva-tiny", "--json", *COMMANDS[command]]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    if command == "embed":
        assert (rows[0]["rows"], rows[0]["failed"]) == (len(good), len(wrong))
        assert np.isfinite(np.load("index.npz")["features"]).all()
    else:
        name = "a" if command == "similarity" else "file"
        assert {Path(row[name]).name for row in rows} == good
    place = "index.npz.failures.jsonl" if command == "embed" else "failed.jsonl"
    listed = [json.loads(line) for line in Path(place).read_text().splitlines()]
    assert {Path(one["name"]).name for one in listed} == wrong and all(one["error"] for one in listed)
    total = len(good | wrong) + (command == "similarity")  # and its text
    assert f"{len(wrong)} of {total} " in err
    for one in wrong:
        assert f"  mixed/{one}: " in err


@pytest.mark.parametrize("name", ["empty.jpg", "huge.png", "pipe.jpg", "gone.jpg", "loop.jpg", "cut.jpg"])
def test_one_by_itself_is_named_too(name, mixed, capsys):
    assert cli.main(["similarity", f"mixed/{name}", "--text", "a", "--model", "vladva-tiny"]) in (1, 2)
    assert f"mixed/{name}" in capsys.readouterr().err


def test_the_list_of_failures_is_empty_if_there_were_none_and_its_place_is_checked_first(mixed, capsys):
    words = ["similarity", "mixed/cmyk.jpg", "--text", "a", "--model", "vladva-tiny", "--failures"]
    Path("failed.jsonl").write_text("of an earlier run")
    assert cli.main([*words, "failed.jsonl"]) == 0
    assert Path("failed.jsonl").read_bytes() == b""
    assert cli.main([*words, "mixed"]) == 2
    assert "--failures mixed can't be written" in capsys.readouterr().err


def test_a_line_that_is_no_text_costs_no_other(mixed, capsys):
    Path("texts.txt").write_bytes(b"a cat\ncaf\xe9\na dog\n")
    options = ("--texts", "texts.txt", "--model", "vladva-tiny")
    assert cli.main(["embed", *options, "--out", "texts.npz"]) == 1
    assert "1 of 3 items failed:\n  texts.txt: line 2: is not UTF-8" in capsys.readouterr().err
    assert json.loads(bytes(np.load("texts.npz")["names"])) == ["a cat", "a dog"]
    assert json.loads(Path("texts.npz.failures.jsonl").read_text())["name"] == "texts.txt: line 2"
    assert cli.main(["similarity", *options]) == 1
    assert "1 of 3 items failed:\n  texts.txt: line 2: is not UTF-8" in capsys.readouterr().err
