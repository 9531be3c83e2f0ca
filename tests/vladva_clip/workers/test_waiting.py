"""Workers that fail, die, hang or have too little shared memory: the wait for them ends with a reason."""

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import vladva_clip
from tests.support.training.loaders import open_loader
from tests.support.training.pairs import ListSource, as_examples, to_pixels
from vladva_clip.interface import machine
from vladva_clip.records.records import Record
from vladva_clip.workers import shared_memory, waiting
from vladva_clip.workers.shared_memory import Prefetch, SharedMemoryError
from vladva_clip.workers.waiting import LoaderError
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.loader import Loader

MIB = 2**20


@pytest.fixture(scope="module")
def splitter():
    return CaptionSplitter(vladva_clip.get_tokenizer("vladva-tiny"))


@dataclass
class Troubled(ListSource):
    """A source whose records from `start` on raise an error, or are slow."""

    start: int = 0
    error: BaseException | None = None
    seconds: float = 0.0
    group_size: int = 20  # one group, so that records come in order

    def __getitem__(self, index: int) -> Record:
        if index % 20 >= self.start:
            time.sleep(self.seconds)
            if self.error is not None:
                raise self.error
        return super().__getitem__(index)


def large_pixels(image) -> torch.Tensor:
    """Pixels that go through shared memory: 192 KiB."""
    return to_pixels(image).repeat(1, 16, 16)


def loader_of(splitter, source=None, **options) -> Loader:
    options = {"batch_size": 4, "num_workers": 2, "collate": torch_stack, "max_bad_share": 0.9, **options}
    return open_loader([source or ListSource()], splitter, large_pixels, **options)


def torch_stack(examples: list) -> torch.Tensor:
    return torch.stack([example.pixels for example in examples])


def test_too_little_shared_memory_is_an_error_of_the_worker_s_own_step(splitter, monkeypatch):
    loader = loader_of(splitter)
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: MIB // 2)
    expected = r"worker 0: SharedMemoryError: a batch takes 0.8 MiB.*found 0.5 MiB free in /dev/shm.*--shm-size"
    with pytest.raises(LoaderError, match=expected):
        next(iter(loader))


def test_what_torch_can_t_share_is_an_error_of_the_worker_s_own_step(splitter, monkeypatch):
    def fail(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    loader = loader_of(splitter)
    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with pytest.raises(LoaderError, match=r"can't be shared \(unable to allocate.*No space left.*--shm-size"):
        next(iter(loader))


def test_batches_of_workers_arrive_in_shared_memory_and_those_without_workers_do_not(splitter):
    assert next(iter(loader_of(splitter))).is_shared()
    assert not next(iter(loader_of(splitter, num_workers=0))).is_shared()


SMALL = """
    import sys; sys.path[:0] = {path!r}
    import torch
    from test_waiting import CaptionSplitter, loader_of, shared_memory, vladva_clip
    torch.multiprocessing.set_sharing_strategy({strategy!r})
    shared_memory.fit = lambda workers, size: shared_memory.Prefetch(workers)  # as if filled by others since
    loader = loader_of(CaptionSplitter(vladva_clip.get_tokenizer("vladva-tiny"), 30, 500))
    found = []
    try:
        for batch in loader:
            found.append(batch)
    except ValueError as error:
        print(len(found) > 0, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_a_small_dev_shm_ends_the_loader_and_does_not_hang_it(strategy):
    """As in a container of Docker's, with a tmpfs of 3 MiB."""
    mount = "mount -t tmpfs -o size=3m tmpfs /dev/shm && exec"
    alone = ["unshare", "--mount", "sh", "-c", f'{mount} "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("mounting a small /dev/shm is not allowed here")
    program = textwrap.dedent(SMALL).format(path=[os.path.dirname(__file__), *sys.path], strategy=strategy)
    done = subprocess.run([*alone, sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True loader worker") and "--shm-size" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("free", "memory", "expected"),
    [
        (1000, 1000, Prefetch(4, 2)),
        (None, None, Prefetch(4, 2)),  # no /dev/shm, as on macOS
        (100, 1000, Prefetch(4, 1)),  # 80 may be used: enough for 5 batches, not for 9
        (60, 1000, Prefetch(3, 1)),
        (30, 1000, Prefetch(1, 1)),
        (1000, 260, Prefetch(4, 1)),  # 130 may be used: enough for 5 batches and 4 that are assembled, twice each
        (1000, 140, Prefetch(2, 1)),
        (1000, 1, Prefetch(1, 1)),
    ],
)
def test_prefetch_is_lowered_to_what_fits(monkeypatch, free, memory, expected):
    """Batches of 10 MiB for four workers."""
    set_machine(monkeypatch, free, memory)
    found = shared_memory.fit(4, 10 * MIB)
    assert (found.num_workers, found.ahead) == (expected.num_workers, expected.ahead)
    assert bool(found.note) == (expected != Prefetch(4))
    if found.note:
        assert f"reading with {expected.num_workers} x 1 instead" in found.note and "90.0 MiB" in found.note
        assert ("--shm-size" in found.note) == (free < 1000)


def set_machine(monkeypatch, free: int | None, memory: int | None) -> None:
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: free and free * MIB)
    monkeypatch.setattr(shared_memory, "available_memory", lambda: memory and memory * MIB)


def test_the_processes_of_a_machine_share_its_memory(monkeypatch):
    set_machine(monkeypatch, 1000, 1000)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "10")
    found = shared_memory.fit(4, 10 * MIB)
    assert (found.num_workers, found.ahead) == (1, 1) and "in each of 10 processes" in found.note


def test_shared_memory_for_no_worker_is_refused_before_any_starts(splitter, monkeypatch):
    set_machine(monkeypatch, 1, 1000)
    with pytest.raises(SharedMemoryError, match=r"2 workers x 2 batches of 0.8 MiB need 3.8 MiB.*found 1.0 MiB free"):
        loader_of(splitter)
    assert next(iter(loader_of(splitter, num_workers=0))).shape == (4, 3, 128, 128)


def test_batches_that_travel_by_value_need_no_shared_memory(monkeypatch):
    set_machine(monkeypatch, 0, 1000)
    assert shared_memory.fit(4, 50_000) == Prefetch(4)


def test_a_container_s_limit_counts_as_the_machine_s_memory(monkeypatch, tmp_path):
    groups = tmp_path / "groups"
    (groups / "job/step").mkdir(parents=True)
    texts = {"memory.max": "4000000", "memory.current": "3000000", "memory.stat": "inactive_file 500\n"}
    for name, text in texts.items():
        (groups / "job" / name).write_text(text)
    (groups / "job/step/memory.max").write_text("max\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/job/step\n")
    monkeypatch.setattr(machine, "OWN_GROUP", own)
    monkeypatch.setattr(machine, "GROUPS", groups)
    assert machine.available_memory() == 1_000_500
    monkeypatch.setattr(machine, "OWN_GROUP", tmp_path / "none")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    assert machine.available_memory() is None


@pytest.mark.parametrize(
    "error", [RuntimeError("made so\nand so"), MemoryError("in the collate"), StopIteration("at the end")]
)
def test_an_error_of_a_worker_is_reported_in_one_line(splitter, error):
    def fail(examples: list) -> None:
        raise error

    with pytest.raises(LoaderError) as caught:
        next(iter(loader_of(splitter, collate=fail)))
    assert str(caught.value) == f"loader worker 0: {type(error).__name__}: {error}".partition("\n")[0]
    assert "Traceback" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("error", "reason"), [(RecursionError("too deep"), "nested too deeply"), (MemoryError(), "out of memory")]
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_record_that_overwhelms_python_is_a_bad_record(splitter, error, reason, num_workers):
    loader = loader_of(splitter, Troubled(start=18, error=error), num_workers=num_workers, collate=as_examples)
    batches = list(itertools.islice(loader, 5))
    assert [len(batch) for batch in batches] == [4] * 5
    assert set(loader.report.bad) == {reason} and loader.report.bad[reason] >= 2


def test_a_batch_that_does_not_come_is_given_up_after_the_limit(splitter):
    batches = iter(loader_of(splitter, Troubled(start=8, seconds=60, group_size=1), timeout=1.0))
    started = time.monotonic()
    with pytest.raises(LoaderError, match=r"loader worker \d \(pid \d+\) sent no batch for 1 s.*free in /dev/shm"):
        list(itertools.islice(batches, 5))
    assert time.monotonic() - started < 20


def test_a_worker_that_stopped_while_its_batch_is_fetched_is_given_up_after_the_limit(splitter):
    """It has announced the batch, and is asked for its memory."""
    loader = loader_of(splitter, num_workers=1, timeout=1.0)
    batches = iter(loader)
    next(batches)
    time.sleep(0.5)  # until the next ones are announced
    [worker] = workers_of(batches)
    worker_pid = worker.pid
    os.kill(worker_pid, signal.SIGSTOP)
    with pytest.raises(LoaderError, match=f"loader worker 0 .pid {worker_pid}. sent no batch for 1 s"):
        list(itertools.islice(batches, 5))
    assert not worker.is_alive()


def workers_of(batches) -> list:
    """The worker processes of a loader that is being read."""
    return batches.gi_frame.f_locals["reader"].gi_frame.f_locals["waiting"].reader._workers


def test_a_killed_worker_is_noticed_only_where_the_loader_waits(splitter):
    batches = iter(loader_of(splitter))
    next(batches)
    worker = workers_of(batches)[0]
    worker.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker.pid}/stat").read_text().split()[2] != "Z":  # its death must not end this loop
        assert time.monotonic() < deadline
    time.sleep(0.05)
    with pytest.raises(
        LoaderError, match=r"loader worker 0 .*was killed by SIGKILL.*memory runs out.*free in /dev/shm"
    ):
        list(itertools.islice(batches, 10))


def test_leaving_a_loader_ends_busy_workers_at_once(splitter):
    batches = iter(loader_of(splitter, Troubled(start=4, seconds=60), batch_size=4))
    next(batches)
    workers, started = workers_of(batches), time.monotonic()
    batches.close()
    assert not any(worker.is_alive() for worker in workers) and time.monotonic() - started < 4


def closes_its_pipes_and_dies_later() -> None:
    os.closerange(3, 100)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_whose_pipes_close_before_it_ends_is_found_dead():
    process = multiprocessing.get_context("fork").Process(target=closes_its_pipes_and_dies_later)
    process.start()
    waiting_for_it = waiting._Waiting(SimpleNamespace(num_workers=1), SimpleNamespace(_workers=[process]), 0)
    assert f"(pid {process.pid}) was killed by SIGKILL" in waiting_for_it._explained(ConnectionResetError())


class TestAWorkerKilledWhileItHeldTorchsLock:
    """It looked whether it should end: the event's lock is never given back."""

    @staticmethod
    def reader_of(batches):
        reader = batches.gi_frame.f_locals["reader"].gi_frame.f_locals["waiting"].reader
        lock = reader._workers_done_event._event._cond
        assert lock.acquire()
        return reader

    def test_leaving_the_loader_ends_at_once(self, splitter):
        batches = iter(loader_of(splitter))
        next(batches)
        reader, started = self.reader_of(batches), time.monotonic()
        batches.close()
        assert not any(worker.is_alive() for worker in reader._workers) and time.monotonic() - started < 4

    def test_the_last_batch_is_the_end(self, splitter, monkeypatch):
        monkeypatch.setattr(waiting._Done, "PATIENCE", 0.5)
        monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)  # torch's own patience
        loader = torch.utils.data.DataLoader(range(1), **waiting.worker_options(Prefetch(1, 1)))
        batches = waiting.batches(loader)
        reader = batches.gi_frame.f_locals["waiting"].reader
        assert next(batches).tolist() == [0] and reader._workers_done_event._event._cond.acquire()
        started = time.monotonic()
        assert list(batches) == [] and time.monotonic() - started < 4
        assert not reader._workers[0].is_alive()
