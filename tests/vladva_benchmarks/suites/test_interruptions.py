"""`vladva-benchmark run` interrupted, without room, and with what it can't read or write: nothing computed is lost."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support import damage
from tests.support.suites.suite_results import NUM_SCENE_TASKS, computed, metrics
from vladva_benchmarks import cli
from vladva_benchmarks.suites import command, runner
from vladva_benchmarks.suites.runner import Settings
from vladva_clip.bulk.parts import Part, Parts
from vladva_clip.workers import shared_memory


class TestInterruptions:
    def test_ctrl_c(self, settings, expected, capsys, monkeypatch):
        """A real SIGINT once the first part is written: status 130, and the next run computes only what is missing."""
        words = ["run", "scenes", "--model", settings.model, "--data-root", str(settings.data_root)]
        words += ["--output", str(settings.output), "--num-workers", "0", "--scene-pictures", "24", "--batch-size", "2"]
        monkeypatch.setattr(command, "Settings", partial(Settings, part=8))  # no option of the command
        with monkeypatch.context() as patched:
            patched.setattr(Parts, "write", _then_interrupted(Parts.write, 2))
            before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of the background ignores it
            status = cli.main(words)
            signal.signal(signal.SIGINT, before)
        assert status == 130
        assert "interrupted: finished features are in" in capsys.readouterr().err
        parts = {path: path.stat().st_mtime_ns for path in (settings.output / "features").rglob("*.safetensors")}
        assert 2 <= len(parts) < 6 and not list(settings.output.rglob(".*"))
        assert metrics(runner.run(settings)) == expected
        assert "parts found" in capsys.readouterr().out

    @pytest.mark.parametrize(("room", "where", "kept"), [(500, "images-", 0), (2000, "scenes_classification", 87)])
    def test_a_full_disk(self, settings, expected, capsys, room, where, kept):
        """A limit on file sizes forbids a part of the features, or the first result; what is whole is used again."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(ValueError, match=f"{where}.* can't be written .*make room.*run the same command again"):
                runner.run(replace(settings, command=["a long one"] * 200))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(list((settings.output / "features").iterdir())) == kept  # 48 pictures, 48 classes, 600 texts
        assert not list(settings.output.glob("*.json")) and not list(settings.output.rglob(".*"))
        capsys.readouterr()
        assert metrics(runner.run(settings)) == expected
        assert len(computed(capsys.readouterr().out)) == (0 if kept else 3)

    @pytest.mark.parametrize("harm", [Path.unlink, damage.bit_of_the_beginning, damage.cut, damage.pipe])
    def test_a_folder_of_scenes_with_a_shard_lost_or_damaged(self, settings, tmp_path, harm):
        place = runner.drawn_scenes.export(tmp_path / "data", 24)
        (place / "note of the user.txt").touch()
        assert runner.drawn_scenes.export(tmp_path / "data", 24) == place
        harm(place / "retrieval" / "test" / "0.tar")
        with pytest.raises(ValueError, match="scenes can't be read .*0.tar.*: remove it, and run again"):
            runner.run(replace(settings, data_root=tmp_path / "data"))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_pictures_that_are_none(self, settings, scratch, capsys, workers):
        """All are named, other parts and suites don't suffer; once they are replaced, only their parts are due."""
        place = scratch("flickr30k") / "flickr30k"
        asked = replace(settings, suites=["flickr30k", "scenes"], data_root=place.parent, subset=True, part=4)
        asked = replace(asked, num_workers=workers, batch_size=3)
        names = [path.name for path in sorted(place.glob("*.jpg"))]
        whole = {names[number]: (place / names[number]).read_bytes() for number in (1, 2, 9)}  # of the parts 0 and 2
        for name, data in whole.items():
            (place / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError) as caught:
            runner.run(asked)
        lines = str(caught.value).splitlines()
        assert lines[0] == "flickr30k: 3 of 12 images can't be read:" and "same command again" in lines[-1]
        assert [name in line for name, line in zip(whole, lines[1:-1], strict=True)] == [True] * 3
        assert {path.name.split("_")[0] for path in settings.output.glob("*.json")} == {"scenes"}
        for name, data in whole.items():
            (place / name).write_bytes(data)
        capsys.readouterr()
        assert len(runner.run(asked)) == 1 + NUM_SCENE_TASKS
        assert "images: 12 items, 1 of 3 parts found" in capsys.readouterr().out

    def test_too_little_shared_memory(self, settings, expected, monkeypatch):
        """As in a container: it is reported instead of hanging, and nothing that was computed is lost."""
        with monkeypatch.context() as patched:
            patched.setattr(shared_memory, "free_bytes", lambda: 1)
            with pytest.raises(ValueError, match="shared memory.*free in /dev/shm.*--shm-size"):
                runner.run(replace(settings, num_workers=1))
        assert metrics(runner.run(settings)) == expected

    @pytest.mark.slow
    def test_pictures_that_are_none_among_several_processes(self, clip_name, scratch, tmp_path):
        """The process that had no such picture goes on with the others, and stops as they do."""
        root = scratch("flickr30k")
        next((root / "flickr30k").glob("*.jpg")).write_bytes(b"no picture")
        words = ["run", "flickr30k", "scenes", "--model", clip_name, "--data-root", str(root), "--subset"]
        words += ["--output", str(tmp_path / "results"), "--scene-pictures", "8", "--num-workers", "0"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "vladva_benchmarks.cli", *words]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=300)
        assert done.returncode and done.stderr.count(b"error: flickr30k: 1 of 12 images can't be read") >= 1
        assert len(list((tmp_path / "results").glob("scenes*.json"))) == NUM_SCENE_TASKS

    def test_a_place_that_cant_be_written(self, settings, tmp_path):
        """It is said before a model loads."""
        (tmp_path / "file").touch()
        asked = replace(settings, model="local-dir:/no/model/is/here", output=tmp_path / "file")
        with pytest.raises(ValueError, match="file can't be written .*name another place"):
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

    def writing(parts: Parts, name: str, part: Part) -> None:
        write(parts, name, part)
        if len(list(parts.directory.glob("*.safetensors"))) == count:
            os.kill(os.getpid(), signal.SIGINT)

    return writing
