"""`vladva-benchmark run` interrupted, without room, and with what it can't read or write: nothing computed is lost."""

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from suite_results import computed, metrics

from vladva_benchmarks import cli, files, run
from vladva_benchmarks.suites import runner
from vladva_benchmarks.suites.runner import Settings


class TestInterruptions:
    def test_ctrl_c(self, settings, expected, capsys, monkeypatch):
        """A real SIGINT once the first part is written: status 130, and the next run computes only what is missing."""
        words = ["run", "scenes", "--model", settings.model, "--data-root", str(settings.data_root)]
        words += ["--output", str(settings.output), "--num-workers", "0", "--scene-pictures", "24", "--batch-size", "2"]
        monkeypatch.setattr(run, "Settings", partial(Settings, part=8))  # no option of the command
        with monkeypatch.context() as patched:
            patched.setattr(files, "write", _then_interrupted(files.write, 2))
            assert cli.main(words) == 130
        assert "interrupted: finished features are in" in capsys.readouterr().err
        parts = {path: path.stat().st_mtime_ns for path in (settings.output / "features").rglob("*.safetensors")}
        assert 2 <= len(parts) < 6 and not list(settings.output.rglob("*.new"))
        assert metrics(runner.run(settings)) == expected
        assert "parts found" in capsys.readouterr().out

    @pytest.mark.parametrize(("room", "where", "kept"), [(500, "images-", 0), (2000, "scenes_classification", 27)])
    def test_a_full_disk(self, settings, expected, capsys, room, where, kept):
        """A limit on file sizes forbids a part of the features, or the first result; what is whole is used again."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(ValueError, match=f"{where}.* can't be written .*make room.*run the same command again"):
                runner.run(replace(settings, command=["a long one"] * 200))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(list((settings.output / "features").iterdir())) == kept  # 48 pictures, 48 classes, 120 texts
        assert not list(settings.output.glob("*.json")) and not list(settings.output.rglob("*.new"))
        capsys.readouterr()
        assert metrics(runner.run(settings)) == expected
        assert len(computed(capsys.readouterr().out)) == (0 if kept else 3)

    def test_a_folder_of_scenes_with_a_shard_lost(self, settings, tmp_path):
        place = runner.drawn_scenes.export(tmp_path / "data", 24)
        (place / "retrieval" / "test" / "0.tar").unlink()
        with pytest.raises(ValueError, match="scenes can't be read .*0.tar.*: remove it, and run again"):
            runner.run(replace(settings, data_root=tmp_path / "data"))

    def test_a_picture_that_is_no_picture(self, settings, tmp_path):
        """It is named; what came before is kept."""
        place = runner.drawn_scenes.export(tmp_path / "data", 24)
        picture = runner.drawn_scenes._read_shards(tmp_path / "data", place / "retrieval", ".txt")[0][20]
        shard = picture.path
        data = bytearray(shard.read_bytes())
        data[picture.offset : picture.offset + 8] = b"not PNG."
        shard.write_bytes(data)
        with pytest.raises(ValueError, match="6.tar .*000020.png. is no readable picture"):
            runner.run(replace(settings, data_root=tmp_path / "data"))
        assert len(list((settings.output / "features").rglob("*.safetensors"))) == 5

    def test_a_place_that_cant_be_written(self, settings, tmp_path):
        """It is said before a model loads."""
        (tmp_path / "file").touch()
        asked = replace(settings, model="local-dir:/no/model/is/here", output=tmp_path / "file")
        with pytest.raises(ValueError, match="file/.* can't be written .*name another place"):
            runner.run(asked)

    def test_two_runs_draw_at_once(self, tmp_path, monkeypatch):
        """The other one is ready in the middle of this one, which takes what is there."""
        drawn, root = runner.drawn_scenes, tmp_path / "data"
        write, other = drawn._write, drawn.export(tmp_path / "other", 8)
        monkeypatch.setattr(drawn, "_write", lambda *asked: (write(*asked), other.rename(root / "scenes")))
        assert (drawn.export(root, 8) / drawn.ABOUT).is_file()
        assert [path.name for path in root.iterdir()] == ["scenes"]


def _then_interrupted(write: Callable, count: int) -> Callable:
    """Writing as it is, with a SIGINT to this process once so many parts are there."""

    def writing(path: Path, content: bytes) -> None:
        write(path, content)
        if len(list(path.parent.glob("*.safetensors"))) == count:
            os.kill(os.getpid(), signal.SIGINT)

    return writing
