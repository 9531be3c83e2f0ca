"""Embedding goes on where it stopped, gives what single calls give, and loses nothing."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import picture
from vladva_clip.bulk import catalog, embedding, request
from vladva_clip.bulk.filling import Model, fill
from vladva_clip.bulk.job import Job, opened
from vladva_clip.index.embed import probes
from vladva_clip.index.store import load
from vladva_clip.storage import file_locks

TEXTS = ["a red circle", "a green star"]
MADE_BY = {"model": "vladva-tiny", "directory": ""}


def made_by(tiny: Model) -> dict:
    return MADE_BY | probes(tiny.model, tiny.preprocess, tiny.tokenizer)


def begin(folder: Path, tiny: Model) -> tuple[Job, list]:
    collections = request.collections(folder)
    return opened(folder, [len(one) for one in collections], made_by(tiny)), collections


def embed(output: Path, words: list[str], tiny: Model, texts: list[str] = TEXTS) -> embedding.Done:
    with embedding.working_folder(output, request.Request(words, texts, os.getcwd()), int) as folder:
        job, collections = begin(folder, tiny)
        fill(job, collections, tiny, job.missing(), int)
        return embedding.finish(output, job, collections, tiny)


@pytest.mark.usefixtures("small_parts")
class TestFeatures:
    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_they_are_those_of_single_calls(self, folder, tiny, num_workers):
        model = Model(tiny.model, tiny.preprocess, tiny.tokenizer, 3, num_workers)
        done = embed(Path("a.npz"), ["pictures"], model)
        index = load(Path("a.npz"))
        assert (done.rows, done.width, done.failed) == (11, 256, 1)
        paths = [name for name in index.names if name not in TEXTS]
        for row, path in enumerate(paths):
            number = int(Path(path).stem)
            pixels = tiny.preprocess(picture(number))[None]
            expected = tiny.model.encode_image(pixels, normalize=True)[0].detach().numpy()
            assert np.abs(index.features[row] - expected).max() < 1e-5
        expected = tiny.model.encode_text(tiny.tokenizer(TEXTS), normalize=True).detach().numpy()
        assert np.abs(index.features[len(paths) :] - expected).max() < 1e-5

    def test_they_are_bit_equal_for_any_number_of_workers(self, folder, tiny):
        for number in (0, 1, 3):
            model = Model(tiny.model, tiny.preprocess, tiny.tokenizer, 3, number)
            embed(Path(f"{number}.npz"), ["pictures"], model)
        files = [Path(f"{number}.npz").read_bytes() for number in (0, 1, 3)]
        assert files[0] == files[1] == files[2]

    def test_what_failed_is_listed_beside_the_file(self, folder, tiny):
        done = embed(Path("a.npz"), ["pictures"], tiny)
        (line,) = embedding.failures_of(Path("a.npz")).read_text().splitlines()
        assert json.loads(line)["name"] == "pictures/7.png" == done.first[0].name
        assert "Pillow doesn't recognize it" in json.loads(line)["error"]
        (folder / "7.png").unlink()
        embed(Path("a.npz"), ["pictures"], tiny)
        assert not embedding.failures_of(Path("a.npz")).exists()

    def test_a_file_that_vanishes_after_the_listing_fails_alone(self, folder, tiny):
        with embedding.working_folder(Path("a.npz"), request.Request(["pictures"], [], os.getcwd()), int) as place:
            job, collections = begin(place, tiny)
            (folder / "2.png").unlink()
            fill(job, collections, tiny, job.missing(), int)
            done = embedding.finish(Path("a.npz"), job, collections, tiny)
        assert done.failed == 2 and done.rows == 8

    def test_a_file_that_vanishes_while_it_is_being_read_fails_alone(self, folder, tiny, monkeypatch):
        """After its size was read, before it is opened."""
        row = catalog.Catalog.row

        def vanishing(files, number):
            found = row(files, number)
            if found.name == "pictures/4.png":
                Path(found.name).unlink(missing_ok=True)
            return found

        monkeypatch.setattr(catalog.Catalog, "row", vanishing)
        done = embed(Path("a.npz"), ["pictures"], tiny)
        assert (done.rows, done.failed) == (10, 2)
        assert {Path(one.name).name: one.reason for one in done.first}["4.png"] == "No such file or directory"

    def test_parts_of_nothing_but_failures(self, folder, tiny):
        for path in folder.rglob("*.png"):
            path.write_bytes(b"")
        done = embed(Path("a.npz"), ["pictures"], tiny)
        assert (done.rows, done.failed) == (2, 10) and load(Path("a.npz")).features.shape == (2, 256)


@pytest.mark.usefixtures("small_parts")
class TestResuming:
    def test_only_what_is_missing_is_computed(self, folder, tiny):
        wanted = request.Request(["pictures"], TEXTS, os.getcwd())
        with embedding.working_folder(Path("a.npz"), wanted, int) as place:
            job, collections = begin(place, tiny)
            fill(job, collections, tiny, job.missing()[:2], int)
        with embedding.working_folder(Path("a.npz"), wanted, int) as place:
            job, collections = begin(place, tiny)
            assert [one.items.start for one in job.missing()] == [8, 0]
            counts = []
            fill(job, collections, tiny, job.missing(), counts.append)
            assert counts == [2, 2]
            embedding.finish(Path("a.npz"), job, collections, tiny)
        assert not place.exists()
        embed(Path("b.npz"), ["pictures"], tiny)
        assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()

    def test_a_damaged_part_is_computed_again(self, folder, tiny):
        with embedding.working_folder(Path("a.npz"), request.Request(["pictures"], TEXTS, os.getcwd()), int) as place:
            job, collections = begin(place, tiny)
            fill(job, collections, tiny, job.missing(), int)
            first, second, *_ = sorted(place.glob("*.safetensors"))
            first.write_bytes(first.read_bytes()[:-1])
            second.unlink()
            assert embedding.finish(Path("a.npz"), job, collections, tiny).rows == 11
        embed(Path("b.npz"), ["pictures"], tiny)
        assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()

    def test_another_model_is_refused(self, folder, tiny):
        wanted = request.Request(["pictures"], TEXTS, os.getcwd())
        with embedding.working_folder(Path("a.npz"), wanted, int) as place:
            begin(place, tiny)
        turned = Model(tiny.model, lambda image: -tiny.preprocess(image), tiny.tokenizer)
        with (
            pytest.raises(ValueError, match="holds features of vladva-tiny, which differ"),
            embedding.working_folder(Path("a.npz"), wanted, int) as place,
        ):
            begin(place, turned)

    def test_nothing_stays_of_what_had_not_begun(self, folder, tiny):
        """A mistyped folder or model must not stand in the way of the right one."""
        wanted = request.Request(["no-such-folder"], [], os.getcwd())
        with pytest.raises(RuntimeError), embedding.working_folder(Path("a.npz"), wanted, int):
            raise RuntimeError
        assert not Path("a.npz.parts").exists()
        with embedding.working_folder(Path("a.npz"), wanted, int):
            pass  # as a kill while it lists leaves it
        assert embed(Path("a.npz"), ["pictures"], tiny).rows == 11

    def test_a_part_that_stays_damaged_ends_it(self, folder, tiny, monkeypatch):
        with embedding.working_folder(Path("a.npz"), request.Request(["pictures"], TEXTS, os.getcwd()), int) as place:
            job, collections = begin(place, tiny)
            monkeypatch.setattr(Job, "write", lambda *_: None)
            with pytest.raises(ValueError, match="it is not there: check the disk"):
                embedding.finish(Path("a.npz"), job, collections, tiny)

    def test_long_texts_are_names_too(self, folder, tiny):
        texts = ["word " * 20_000 + str(number) for number in range(9)]
        embed(Path("a.npz"), [], tiny, texts)
        assert load(Path("a.npz")).names == texts

    def test_another_request_is_refused(self, folder, tiny):
        with embedding.working_folder(Path("a.npz"), request.Request(["pictures"], TEXTS, os.getcwd()), int) as place:
            begin(place, tiny)
        with (
            pytest.raises(ValueError, match=r"a\.npz\.parts holds what an interrupted run of another request"),
            embedding.working_folder(Path("a.npz"), request.Request(["pictures"], TEXTS[:1], os.getcwd()), int),
        ):
            pass

    def test_two_runs_at_once_are_refused(self, folder, tiny):
        wanted = request.Request(["pictures"], TEXTS, os.getcwd())
        with (
            embedding.working_folder(Path("a.npz"), wanted, int),
            pytest.raises(ValueError, match="is writing to"),
            embedding.working_folder(Path("a.npz"), wanted, int),
        ):
            pass
        assert not Path("a.npz.parts", file_locks.LOCK).exists()


_KILLED = """
import sys
from vladva_clip.bulk import job
from vladva_clip import cli
job.SIZE = 16
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.wide
def test_killed_at_random_moments_it_ends_with_the_same_file(tmp_path, monkeypatch):
    """Thirty kills, each at another moment of the run that goes on; then it runs to its end."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for number in range(300):
        picture(number).save(f"pictures/{number:03}.png")
    command = [
        sys.executable,
        "-c",
        _KILLED,
        *(["embed", "pictures", "--model", "vladva-tiny", "--batch-size", "8", "--out"]),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "whole.npz"], check=True, env=environment)
    rng, killed = random.Random(0), 0
    for _ in range(30):
        with subprocess.Popen([*command, "killed.npz", "--workers", "1"], env=environment) as process:
            time.sleep(2 + rng.random() * 6)
            killed += process.poll() is None  # else it was faster
            process.kill()
        if Path("killed.npz").exists():
            assert Path("killed.npz").read_bytes() == Path("whole.npz").read_bytes()
            Path("killed.npz").unlink()
    subprocess.run([*command, "killed.npz", "--workers", "1"], check=True, env=environment)
    assert killed >= 10 and Path("killed.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert sorted(os.listdir()) == ["killed.npz", "pictures", "whole.npz"]
