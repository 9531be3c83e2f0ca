"""A Ray cluster of this machine: equal features, and a worker that is killed loses nothing. For `make test-wide`."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.samples import picture
from vladva_clip import cli
from vladva_clip.bulk import embedding, on_ray, request
from vladva_clip.bulk.filling import Model, fill
from vladva_clip.bulk.job import Job, opened
from vladva_clip.commands.model import Asked
from vladva_clip.index.embed import probes
from vladva_clip.sources.registry import packaged_base

ray = pytest.importorskip("ray", reason="the extra `ray`, which `make test-wide` installs")
pytestmark = [pytest.mark.wide, pytest.mark.usefixtures("small_parts", "cluster")]
PICTURES = 60


@pytest.fixture(scope="module")
def cluster():
    """A local cluster whose workers find our package and these tests."""
    root = str(Path(__file__).parents[3])
    config = {"worker_niceness": 0}  # else they starve beside other tests
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": root}}, _system_config=config)
    yield
    ray.shutdown()


@pytest.fixture
def many(tmp_path, monkeypatch) -> Path:
    """Sixty pictures, one of them broken, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (place := Path("many")).mkdir()
    for number in range(PICTURES):
        picture(number).save(place / f"{number:02}.png")
    (place / "07.png").write_bytes(b"not a picture")
    return place


def embed(output: Path, tiny: Model, compute) -> bytes:
    asked = request.Request(["many"], ["a red circle"], os.getcwd())
    with embedding.working_folder(output, asked, int) as folder:
        collections = request.collections(folder)
        made_by = {"directory": "", **probes(tiny.model, tiny.preprocess, tiny.tokenizer)}
        job = opened(folder, [len(one) for one in collections], made_by)
        compute(job, collections)
        embedding.finish(output, job, collections, tiny)
    return np.load(output)["features"].tobytes()


def replicas(**changed) -> on_ray.Replicas:
    return on_ray.Replicas(
        **{"load": Asked("vladva-tiny").load, "count": 2, "num_gpus": 0, "batch_size": 3, "num_workers": 0} | changed
    )


def on_cluster(job: Job, collections) -> None:
    done = []
    on_ray.fill(job, replicas(), job.missing(), done.append)
    assert sum(done) == PICTURES + 1


def workers() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if any("PartWorker" in word for word in one.cmdline())]


def test_features_are_those_of_one_machine(many, tiny):
    here = embed(Path("here.npz"), tiny, lambda job, them: fill(job, them, tiny, job.missing(), int))
    there = embed(Path("there.npz"), tiny, on_cluster)
    assert np.abs(np.frombuffer(here, "f4") - np.frombuffer(there, "f4")).max() < 1e-6


def test_a_worker_that_is_killed_loses_nothing(many, tiny):
    killed = []

    def kill(job: Job) -> None:
        while len(job.missing()) > 12:
            time.sleep(0.02)
        victim = workers()[0]
        victim.send_signal(signal.SIGKILL)
        killed.append(victim.pid)

    def compute(job: Job, collections) -> None:
        killer = threading.Thread(target=kill, args=(job,))
        killer.start()
        on_cluster(job, collections)
        killer.join()

    embed(Path("a.npz"), tiny, compute)
    assert killed and len(np.load("a.npz")["features"]) == PICTURES
    assert len((Path("a.npz.failures.jsonl")).read_text().splitlines()) == 1


def test_another_model_is_refused_by_the_workers(many, tiny):
    def compute(job: Job, collections) -> None:
        on_ray.fill(job, replicas(load=Asked("vladva-tiny", "base").load), job.missing(), int)

    with pytest.raises(ValueError, match=r"on a worker of the Ray cluster: .*holds features of .*, which differ"):
        embed(Path("a.npz"), tiny, compute)


def test_a_relative_path_of_a_model_begins_where_the_command_was_given(many):
    shutil.copytree(packaged_base("vladva-tiny"), "base")
    words = ["embed", "many", "--out", "a.npz", "--model", "local-dir:base", "--engine", "ray", "--workers", "0"]
    assert cli.main(words) == 1  # a broken picture
    assert len(np.load("a.npz")["features"]) == PICTURES - 1


def test_the_command(many):
    assert cli.main(["embed", "many", "--out", "a.npz", "--engine", "ray", "--replicas", "2"]) == 1
    assert len(np.load("a.npz")["features"]) == PICTURES - 1


def test_a_cluster_that_does_not_answer(many):
    command = [sys.executable, "-m", "vladva_clip.cli", "embed", "many", "--out", "a.npz", "--engine", "ray"]
    env = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    found = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 2 and "RAY_ADDRESS" in found.stderr and "Traceback" not in found.stderr
