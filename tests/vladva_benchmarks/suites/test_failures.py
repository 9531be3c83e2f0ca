"""`vladva-benchmark run` with something wrong in one suite: the next one runs, all is listed at the end, status 2."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.suites.suite_results import NUM_SCENE_TASKS
from vladva_benchmarks import cli
from vladva_benchmarks.suites import encoding, failures, runner
from vladva_benchmarks.suites.failures import Failures
from vladva_benchmarks.suites.pictures import Picture

DEEP = b"[" * 200_000


class TestTheOtherSuitesRun:
    def run(self, settings, root: Path, *suites: str) -> int:
        words = ["run", *suites, "--model", settings.model, "--data-root", str(root), "--output", str(settings.output)]
        return cli.main([*words, "--subset", "--num-workers", "0", "--scene-pictures", "8"])

    def test_past_wrong_and_missing_data(self, settings, scratch, capsys):
        """Said at once, before the other suites run, and listed again at the end."""
        root = scratch("coco")
        (root / "coco" / "coco_test_karpathy.json").write_bytes(DEEP)
        assert self.run(settings, root, "coco", "winoground", "scenes") == 2
        said = capsys.readouterr()
        assert len(list(settings.output.glob("scenes_*.json"))) == NUM_SCENE_TASKS
        assert "the other suites continue:\ncoco: " in said.err and "Traceback" not in said.err
        last = said.err.split("error: ")[-1]
        assert "nested too deeply" in last and "winoground: files are missing" in last
        assert "same command again" in last

    def test_past_a_result_of_another_model(self, settings, scratch, capsys):
        root = scratch("winoground")
        assert self.run(settings, root, "winoground") == 0
        (path,) = settings.output.glob("*.json")
        path.write_text(path.read_text().replace('"weights": "sha256:', '"weights": "sha256:0'))
        before = path.read_bytes()
        assert self.run(settings, root, "winoground", "scenes") == 2
        assert f"{path} holds figures of other weights" in capsys.readouterr().err.split("error: ")[-1]
        assert path.read_bytes() == before and len(list(settings.output.glob("scenes_*.json"))) == NUM_SCENE_TASKS

    @pytest.mark.parametrize(
        ("raised", "said"),
        [
            (MemoryError(), "not enough memory"),
            (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory .*batch-size"),
            (RuntimeError("DataLoader worker (pid 5) exited"), "RuntimeError: DataLoader worker"),
            (OSError(28, "No space left on device"), "OSError: .*No space left"),
            (KeyError("a defect"), "KeyError: 'a defect'"),
        ],
    )
    def test_past_whatever_a_suite_raises(self, settings, scratch, capsys, monkeypatch, raised, said):
        root, embed = scratch("winoground"), encoding.embed_pictures

        def failing(encoder, cache, pictures, *more):
            if pictures[0].name.startswith("winoground"):
                raise raised
            return embed(encoder, cache, pictures, *more)

        monkeypatch.setattr(encoding, "embed_pictures", failing)
        with pytest.raises(ValueError, match=f"winoground: {said}"):
            runner.run(replace(settings, suites=["winoground", "scenes"], data_root=root, subset=True))
        assert len(list(settings.output.glob("scenes_*.json"))) == NUM_SCENE_TASKS
        assert ("Traceback" in capsys.readouterr().err) == isinstance(raised, KeyError)

    @pytest.mark.parametrize("raised", [SystemError("unknown tag"), MemoryError(), IndexError("x")])
    def test_past_a_picture_on_which_anything_fails(self, settings, scratch, monkeypatch, raised):
        root, decode = scratch("winoground"), Picture.open

        def failing(picture):
            if picture.name.endswith("ex_3_img_1.png"):
                raise raised
            return decode(picture)

        monkeypatch.setattr(Picture, "open", failing)
        with pytest.raises(
            ValueError, match=f"winoground: 1 of 12 images .*\n.*ex_3_img_1.png.*{type(raised).__name__}"
        ):
            runner.run(replace(settings, suites=["winoground", "scenes"], data_root=root, subset=True))
        assert len(list(settings.output.glob("scenes_*.json"))) == NUM_SCENE_TASKS

    @pytest.mark.parametrize(
        "raised", [MemoryError(), torch.OutOfMemoryError("full"), OSError(5, "Input/output error")]
    )
    def test_a_model_that_does_not_fit_is_said(self, settings, monkeypatch, raised):
        def failing(*_):
            raise raised

        monkeypatch.setattr(runner.models, "load", failing)
        with pytest.raises(ValueError, match=f"{settings.model} can't be loaded on cpu: "):
            runner.run(settings)

    def test_ctrl_c_ends_all(self, settings, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(encoding, "embed_pictures", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.run(settings)


class TestProcesses:
    """A suite that fails in one process ends in all of them, and they meet again at the next one."""

    def together(self, monkeypatch, part) -> list[Failures]:
        """Run `part(rank, failures)` in two threads whose `collect` waits for the other, as processes do."""
        barrier, shares = threading.Barrier(2, timeout=20), {}

        def collect(self, items):
            shares[self.rank] = items
            barrier.wait()
            found = [*shares[0], *shares[1]]
            barrier.wait()
            return found

        monkeypatch.setattr(failures.Processes, "collect", collect)
        both = [Failures(failures.Processes(None, torch.device("cpu"), rank, 2)) for rank in range(2)]
        threads = [threading.Thread(target=part, args=(rank, both[rank])) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not barrier.broken
        return both

    @pytest.mark.parametrize(("rank", "step"), [(rank, step) for rank in (0, 1) for step in range(3)])
    def test_they_stay_together(self, monkeypatch, rank, step):
        done = SimpleNamespace(count=0)

        def part(own, found):
            for suite in ("a", "b"):
                with found.of(suite) as sharing:
                    for now in range(3):
                        if (suite, own, now) == ("a", rank, step):
                            raise OSError(28, "No space left")
                        sharing.collect([now])
                    done.count += 1

        both = self.together(monkeypatch, part)
        assert ["a" in one and "b" not in one for one in both] == [True, True]
        assert all("No space left" in str(one.error()) for one in both) and done.count == 2

    @pytest.mark.slow
    def test_a_disk_that_one_of_them_finds_full(self, clip_name, scratch, tmp_path):
        root = scratch("flickr30k")
        words = ["run", "flickr30k", "scenes", "--model", clip_name, "--data-root", str(root), "--subset"]
        words += ["--output", str(tmp_path / "results"), "--scene-pictures", "8", "--num-workers", "0"]
        code = f"""
import errno, os, sys
from functools import partial
from vladva_benchmarks import cli
from vladva_benchmarks.suites import command, runner
from vladva_clip.bulk.parts import Parts
write, evaluate = Parts.write, runner._evaluate
def failing(parts, name, part):
    if os.environ["RANK"] == "1" and Parts.full:
        raise OSError(errno.ENOSPC, "No space left on device")
    write(parts, name, part)
def evaluating(plan, *more):
    Parts.full = plan.suite.name == "flickr30k"
    evaluate(plan, *more)
Parts.write, runner._evaluate, command.Settings = failing, evaluating, partial(runner.Settings, part=4)
sys.exit(cli.main({words!r}))
"""
        (tmp_path / "main.py").write_text(code)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, str(tmp_path / "main.py")], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode and done.stderr.count("error: flickr30k: ") >= 1, done.stderr
        assert "No space left" in done.stderr
        assert len(list((tmp_path / "results").glob("scenes*.json"))) == NUM_SCENE_TASKS
