"""A catalog holds what `find_pictures` finds, in its order, and is read by any process."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from vladva_clip.bulk import catalog
from vladva_clip.bulk.catalog import Catalog
from vladva_clip.pictures.listing import find_pictures, stream_pictures


def make(path: Path, words: list[str]) -> Catalog:
    counts = []
    catalog.write(path, stream_pictures(words, []), counts.append)
    assert sum(counts) == len(list(stream_pictures(words, [])))
    return Catalog(path)


def names(made: Catalog) -> list[str]:
    return [made.name(number) for number in range(len(made))]


WORDS = [["pictures"], ["pictures/below", "pictures"], ["pictures/*.png"], ["pictures/3.png", "pictures/**"], ["none"]]


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_it_is_what_find_pictures_finds(folder, words):
    (folder / "below-").mkdir()
    (folder / "0.png").rename(folder / "below-" / "0.png")
    (folder / "again.png").symlink_to("1.png")
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    (folder / "new\nline.png").write_bytes(b"")
    made = make(Path("catalog.sqlite"), words)
    assert names(made) == [str(path) for path in find_pictures(words)[0]]


def test_rows_have_size_and_time_or_the_reason(folder):
    made = make(Path("catalog.sqlite"), ["pictures"])
    status = (folder / "0.png").stat()
    assert made.row(0)[:4] == ("pictures/0.png", "image", status.st_size, status.st_mtime_ns)
    (folder / "0.png").unlink()
    assert made.row(0).error == "No such file or directory"
    with pytest.raises(IndexError):
        made.row(len(made))


def test_relative_paths_start_where_it_was_made(folder, tmp_path_factory, monkeypatch):
    make(Path("catalog.sqlite"), ["pictures"]).close()
    here = os.getcwd()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    made = Catalog(Path(here, "catalog.sqlite"), here)
    assert made.row(0).name == "pictures/0.png" and made.open(0).size == (96, 80)


def _read(made: Catalog, sent) -> None:
    sent.send(names(made))


def test_a_full_disk_is_an_oserror(tmp_path):
    code = f"""
import resource
from pathlib import Path
from vladva_clip.bulk import catalog
from vladva_clip.pictures.listing import Found
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
files = (Found(0, Path(f"{{number:0200}}"), f"{{number:0200}}") for number in range(1000))
try:
    catalog.write(Path({str(tmp_path / "c.sqlite")!r}), files, int)
except OSError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("refused: "), done.stderr[-500:]
    assert not (tmp_path / "c.sqlite").exists()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_it(folder, method):
    made, context = make(Path("catalog.sqlite"), ["pictures"]), multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_read, args=(made, theirs))
    process.start()
    assert ours.recv() == names(made) == names(pickle.loads(pickle.dumps(made)))
    process.join()


def test_another_file_is_refused(tmp_path):
    (tmp_path / "catalog.sqlite").write_bytes(b"something else entirely, and long enough to be a header" * 9)
    with pytest.raises(ValueError, match="remove its folder to begin again"):
        Catalog(tmp_path / "catalog.sqlite")


def test_nothing_is_left_of_a_listing_that_fails(tmp_path):
    def files():
        yield from ()
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        catalog.write(tmp_path / "catalog.sqlite", files(), int)
    assert not list(tmp_path.iterdir())
