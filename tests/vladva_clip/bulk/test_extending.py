"""`vladva embed --extend`: each file once, whatever it is called; nothing that is there is lost or called vanished."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import picture
from vladva_clip import cli
from vladva_clip.bulk import embedding
from vladva_clip.index import store

INDEX = Path("a.npz")


def embed(*words: str, more: tuple[str, ...] = ("--extend",), index: Path = INDEX) -> int:
    return cli.main(["embed", *words, "--out", str(index), "--model", "vladva-tiny", "--workers", "0", *more])


def names() -> list[str]:
    return list(store.load(INDEX).names)


@pytest.fixture
def three(tmp_path, monkeypatch, capsys) -> list[str]:
    """The names of three pictures in the folder `a` of the working directory, with an index."""
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    for number in range(3):
        picture(number).save(f"a/{number}.png")
    assert embed("a", more=()) == 0
    capsys.readouterr()
    return names()


def test_only_new_and_changed_files_are_embedded(three, capsys):
    before = dict(zip(three, store.load(INDEX).features, strict=True))
    picture(7).save("a/1.png")
    picture(8).save("a/new.png")
    assert embed("a") == 0
    index = store.load(INDEX)
    after = dict(zip(index.names, index.features, strict=True))
    assert sorted(after) == ["a/0.png", "a/1.png", "a/2.png", "a/new.png"] and len(index.names) == 4
    assert [np.array_equal(after[name], before[name]) for name in three] == [True, False, True]
    assert "not there any more" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
def test_another_kind_of_file_is_extended_alike(three, suffix):
    """A picture that could not be read is tried again, and its earlier failure goes."""
    index = Path(f"a.{suffix}")
    Path("a/bad.png").write_bytes(b"none")
    assert embed("a", more=(), index=index) == 1
    before = store.load(index)
    picture(6).save("a/bad.png")
    picture(8).save("a/new.png")
    assert embed("a", index=index) == 0
    after = store.load(index)
    assert after.names == [*three, "a/bad.png", "a/new.png"] and after.made_by == before.made_by
    assert np.array_equal(after.features[:3], before.features)
    assert after.sizes[3] == os.path.getsize("a/bad.png") and after.times[:3].tolist() == before.times.tolist()
    assert cli.main(["search", str(index), "a red circle", "--no-sheet"]) == 0


def test_pictures_that_are_not_asked_for_have_not_vanished(three, capsys):
    Path("b").mkdir()
    picture(5).save("b/5.png")
    assert embed("b") == 0 and embed("--text", "a cat", "--text", "a cat") == 0
    assert names() == [*three, "b/5.png", "a cat"]
    assert "not there any more" not in capsys.readouterr().err


@pytest.mark.parametrize("word", ["{here}/a", "./a", "b/../a", "linked", "linked/../a/*.png"])
def test_the_same_files_under_another_name(three, word):
    Path("b").mkdir()
    Path("linked").symlink_to("a")
    assert embed(word.format(here=os.getcwd())) == 0
    assert names() == three


def test_a_link_to_a_picture_is_no_other_picture(three):
    Path("a/00.png").symlink_to("1.png")
    assert embed("a") == 0 and names() == three


@pytest.mark.parametrize("how", ["gone", "dangling"])
def test_the_row_of_a_vanished_picture_stays(three, capsys, how):
    Path("a/1.png").unlink()
    if how == "dangling":
        Path("a/1.png").symlink_to("nowhere")
    assert embed("a") == 0 and names() == three
    assert "1 pictures of the index are not there any more; their rows stay: a/1.png" in capsys.readouterr().err


def test_records_of_a_table_are_embedded_once(three):
    lines = [json.dumps({"image_path": f"a/{number}.png"}) + "\n" for number in range(3)]
    Path("t.jsonl").write_text("".join(lines[:2]))
    assert embed("t.jsonl") == 0 and embed("t.jsonl") == 0
    Path("t.jsonl").write_text("".join(lines))
    assert embed("t.jsonl") == 0
    assert len(set(names())) == len(names()) == 6


def test_a_kill_before_its_folder_is_gone(three, monkeypatch):
    picture(7).save("a/new.png")
    with monkeypatch.context() as patched:
        patched.setattr(embedding.shutil, "rmtree", _killed)
        with pytest.raises(_Kill):
            embed("a")
    assert Path("a.npz.parts/joined").exists() and len(names()) == 4
    picture(8).save("a/newer.png")
    assert embed("a") == 0 and len(names()) == 5 and not Path("a.npz.parts").exists()


class _Kill(BaseException):
    pass


def _killed(place, *args, remove=shutil.rmtree, **options):
    if Path(place).suffix == ".parts":
        raise _Kill
    remove(place, *args, **options)


def test_a_folder_of_somebody_else_stays(three, capsys):
    Path("b.npz.parts").mkdir()
    Path("b.npz.parts/precious.txt").write_text("mine")
    assert cli.main(["embed", "a", "--out", "b.npz", "--model", "vladva-tiny"]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert Path("b.npz.parts/precious.txt").read_text() == "mine"


def test_words_that_name_nothing_are_listed_as_failures(three):
    shutil.rmtree("a.npz.parts", ignore_errors=True)
    assert embed("a", "nope.jpg", more=("--overwrite",)) == 1
    (line,) = Path("a.npz.failures.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "nope.jpg"
