"""The place of an output is checked before any work, by every command: a file, below a file, not writable."""

import os
import sys

import pytest

from vladva_benchmarks.cli import main as benchmark
from vladva_clip.cli import main as vladva
from vladva_clip.quickstart.tour import run
from vladva_clip.storage import places
from vladva_training.cli import main as train

TINY = "vladva_clip/assets/vladva-tiny/scenes"
FOLDERS = {
    "quickstart": (vladva, ["quickstart", "--output-dir"]),
    "export": (vladva, ["export", "vladva-tiny"]),
    "pull": (vladva, ["pull", "org/name", "--output"]),
    "a recipe": (train, ["debug", "output_dir="]),
    "caption": (train, ["caption", "scenes:train:8", "--output"]),
    "pretrain-tiny-vision": (train, ["pretrain-tiny-vision", "--output-dir"]),
    "pretrain-tiny": (train, ["pretrain-tiny", "--steps", "1", "--vision", "nowhere", "--output-dir"]),
    "benchmark run": (benchmark, ["run", "scenes", "--model", "vladva-tiny", "--data-root", "data", "--output"]),
    "features": (benchmark, ["run", "scenes", "--model", "vladva-tiny", "--data-root", "data", "--features"]),
    "miniature": (benchmark, ["miniature", "--results"]),
    "miniature's work": (benchmark, ["miniature", "--results", "results", "--work"]),
}
FILES = {
    "evaluate-tiny": (train, ["evaluate-tiny", "--output"]),
    "scene-figures": (benchmark, ["scene-figures", "--output"]),
    "training-step": (benchmark, ["training-step", "--json"]),
    "zero-shot": (benchmark, ["zero-shot", "--json"]),
    "report": (benchmark, ["report", "nowhere", "--out"]),
}


def refused(command, capsys, path) -> str:
    main, words = command
    words = [*words[:-1], words[-1] + path] if words[-1].endswith("=") else [*words, path]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and path in err
    return err


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with one file, and no way to load a model or to draw."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    for work in ("vladva_clip.factory.create_model", "vladva_clip.quickstart.tour.draw_gallery"):
        monkeypatch.setattr(work, None)
    yield tmp_path
    assert (tmp_path / "file").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "results"}


@pytest.mark.parametrize("path", ["file", "file/below", "file/below/that"])
@pytest.mark.parametrize("name", FOLDERS)
def test_folders(here, capsys, name, path):
    said = refused(FOLDERS[name], capsys, path)
    if (name, path) != ("export", "file"):
        assert "file is a file" in said or "Not a directory" in said or "File exists" in said or "not an empty" in said


@pytest.mark.parametrize("path", ["file/below", "file/below/that", "."])
@pytest.mark.parametrize("name", FILES)
def test_files(here, capsys, name, path):
    said = refused(FILES[name], capsys, path)
    assert "file is a file" in said or "can't be written" in said or "can't be replaced" in said or "directory" in said


def test_cards(here, capsys):
    assert vladva(["card", "vladva-tiny", "--output", "file/below"]) == 2
    assert "file is a file" in capsys.readouterr().err


def test_the_tour_draws_nothing(here):
    with pytest.raises(ValueError, match="file can't be written .*is a file"):
        run(here / "file")


def test_what_can_be_written(tmp_path):
    (tmp_path / "there.json").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for place in (tmp_path, tmp_path / "a/b/c", tmp_path / "link/d", "relative/folder"):
        places.check_folder(place)
    for place in (tmp_path / "there.json", tmp_path / "a/b.json", None):
        places.check_file(place)
    assert {path.name for path in tmp_path.iterdir()} == {"there.json", "link"}


@pytest.mark.parametrize("path", ["broken", "broken/below", "loop", "x" * 300, "nul\0byte"])
def test_strange_places(tmp_path, path):
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="--out .*can't be written"):
        places.check_folder(tmp_path / path, "--out")


@pytest.mark.skipif(sys.platform == "win32", reason="other permissions")
@pytest.mark.parametrize("check", [places.check_folder, places.check_file])
def test_a_folder_that_belongs_to_someone_else(tmp_path, monkeypatch, check):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    monkeypatch.chdir(folder)
    child = os.fork()
    if child == 0:  # root may write anywhere
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            monkeypatch.setattr(places.Path, "absolute", lambda path: path)  # the way here may be closed to others
            check("new")
            os._exit(1)
        except BaseException as error:
            os._exit(0 if ". is not writable" in str(error) else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
