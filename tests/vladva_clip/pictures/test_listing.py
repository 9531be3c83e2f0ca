"""Which files the words of a command line name, in which order, and what is said of words that name none."""

import os
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from vladva_clip.pictures.files import FORMATS, SUFFIXES
from vladva_clip.pictures.listing import find_pictures, stream_pictures


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The current folder, with pictures and others at several depths."""
    names = ("b.jpg", "a.PNG", "notes.txt", "photo[1].jpg", ".hidden.jpg", "sub/c.webp", "sub/deep/d.tiff")
    for name in (*names, "sub/.cache/e.jpg", "empty/readme.md", "plain.data"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*words: str) -> list[str]:
    paths, failures = find_pictures(words)
    assert not failures
    return [str(path) for path in paths]


EVERY = ["a.PNG", "b.jpg", "photo[1].jpg", "sub/c.webp", "sub/deep/d.tiff"]


def test_a_folder_gives_its_pictures_at_any_depth(root):
    assert found(".") == EVERY
    assert found("sub") == EVERY[3:]
    assert found(str(root)) == [f"{root}/{name}" for name in EVERY]


def test_a_file_is_taken_as_it_is_named(root):
    assert found("notes.txt", ".hidden.jpg", "sub/.cache") == ["notes.txt", ".hidden.jpg", "sub/.cache/e.jpg"]


def test_each_file_once_in_the_order_of_the_words(root):
    assert found("sub/c.webp", "./sub/../sub/c.webp", "b.jpg", ".") == ["sub/c.webp", "b.jpg", *EVERY[:1], *EVERY[2:3],
                                                                       "sub/deep/d.tiff"]  # fmt: skip


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("*.jpg", ["b.jpg", "photo[1].jpg"]),
        ("[ab].*", ["a.PNG", "b.jpg"]),
        ("photo[1].jpg", ["photo[1].jpg"]),  # the name of a file
        ("**/*.[jw]*", ["b.jpg", "photo[1].jpg", "sub/c.webp"]),
        ("s*/**/*.tiff", ["sub/deep/d.tiff"]),
        ("*/**/*.tiff", ["sub/deep/d.tiff"]),  # the first * matches files as well
        ("**/deep", ["sub/deep/d.tiff"]),
        ("s*", ["sub/c.webp", "sub/deep/d.tiff"]),
        ("sub/**", ["sub/c.webp", "sub/deep/d.tiff"]),
        ("*.txt", ["notes.txt"]),
        ("**/**/c.webp", ["sub/c.webp"]),
    ],
)
def test_globs(root, pattern, names):
    assert found(pattern) == names
    assert found(f"{root}/{pattern}") == [f"{root}/{name}" for name in names]


def test_a_folder_whose_name_looks_like_a_glob(root):
    (root / "x[1]").mkdir()
    (root / "x[1]/f.jpg").touch()
    assert found("x[1]") == found("x[[]1]/**/*.jpg") == found("x?1?/**") == ["x[1]/f.jpg"]


def test_the_home_directory(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root))
    assert found("~/sub", "~/*.jpg") == [f"{root}/{name}" for name in (*EVERY[3:], "b.jpg", "photo[1].jpg")]


def test_words_that_name_nothing_fail_and_the_rest_goes_on(root):
    words = ["missing.jpg", "*.gif", "empty", "b.jpg", "", "a\0b", "~nobody-here/x.jpg", "b.jpg/x", "**/*.bmp"]
    paths, failures = find_pictures([*words, "missing.jpg"])
    assert [str(path) for path in paths] == ["b.jpg"]
    assert [one.name for one in failures] == [word for word in words if word != "b.jpg"]
    reasons = {one.name: one.reason for one in failures}
    assert reasons["missing.jpg"] == "No such file or directory" and reasons["*.gif"] == "no file matches"
    assert ".jpg" in reasons["empty"] and "empty name" in reasons[""]


def test_links_make_no_circles(root):
    (root / "sub/up").symlink_to("..")
    (root / "sub/self").symlink_to(".")
    (root / "linked").symlink_to("sub")
    (root / "z.jpg").symlink_to("b.jpg")
    assert found(".") == EVERY
    assert sorted(found("**/*.[jwPt]*")) == sorted([*EVERY, "notes.txt"])
    assert found("linked") == ["linked/c.webp", "linked/deep/d.tiff", *(f"linked/up/{name}" for name in EVERY[:3])]


def test_links_out_of_the_folder_are_followed(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "far.jpg").touch()
    (root / "sub/link").symlink_to(other)
    assert found("sub") == ["sub/c.webp", "sub/deep/d.tiff", "sub/link/far.jpg"]
    assert "sub/link/far.jpg" in found("**/*.jpg")


def test_broken_links_and_pipes_are_listed_so_that_reading_says_why(root):
    (root / "empty/gone.jpg").symlink_to("nowhere")
    os.mkfifo(root / "empty/pipe.jpg")
    assert found("empty") == ["empty/gone.jpg", "empty/pipe.jpg"]


@pytest.fixture
def closed(root):
    """A folder that can't be read, not even by root, who becomes somebody else meanwhile."""
    is_root = os.geteuid() == 0
    root.chmod(0o755)
    (root / "sub/deep").chmod(0)
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)
    (root / "sub/deep").chmod(0o755)


def test_a_flat_folder_is_listed_without_holding_its_names(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    (tmp_path / "many").mkdir()
    for number in range(20_000):
        (tmp_path / f"many/{number:0100}.png").hardlink_to(tmp_path / "a.png")
    tracemalloc.start()
    count = sum(1 for _ in stream_pictures([str(tmp_path / "many")], []))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000 and peak < 1_000_000  # their names alone are 2 MB


def test_folders_that_cannot_be_read(closed):
    paths, failures = find_pictures(["sub", "sub/deep"])
    assert [str(path) for path in paths] == ["sub/c.webp"]
    assert [(one.name, one.reason) for one in failures] == [("sub/deep", "Permission denied")]


def test_names_that_are_not_utf_8(root):
    name = os.fsdecode(b"caf\xe9\n.jpg")
    (root / "empty" / name).touch()
    assert found("empty") == found(f"empty/{name}") == found("empty/*.jpg") == [f"empty/{name}"]


def test_the_suffixes_are_pils_for_our_formats():
    Image.init()
    pils = {suffix for suffix, form in Image.EXTENSION.items() if form in (*FORMATS, "MPO")}
    assert pils - SUFFIXES <= {".pfm"}, "floats, which have no colors"
    assert SUFFIXES - pils <= ({".avif", ".avifs"} if "AVIF" not in Image.OPEN else set())
