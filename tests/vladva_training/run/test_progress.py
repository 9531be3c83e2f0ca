"""What is logged when, and that a resumed run's file reads as if it had never stopped."""

import errno
import json
import math
import resource
import runpy
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from tests.support.training import runs
from vladva_training.processes.errors import RunError
from vladva_training.run import progress as progress_module
from vladva_training.run.progress import JsonLines, Meter, Progress, open_progress
from vladva_training.run.state import RunState
from vladva_training.run.trackers import TensorBoard

VALUES = {"loss": 2.5, "contrastive": 1.5, "ntp": 1.0, "logit_scale": 14.3, "samples_per_s": 8.0}
VALUES |= {"tokens_per_s": 1234.0, "memory_gb": 1.25}


def lines_of(path: Path) -> list[tuple[str, int]]:
    return [(line["event"], line["step"]) for line in map(json.loads, path.read_text().splitlines())]


@pytest.fixture
def written(tmp_path) -> Path:
    """Lines of a run that was killed in its seventh step, in the middle of a line."""
    path = tmp_path / "metrics.jsonl"
    writer = JsonLines(path, RunState())
    for step in range(1, 7):
        writer.write("train", step, {"loss": 1.0})
        if step % 2 == 0:
            writer.write("evaluation", step, {"recall": 0.5})
    writer.close()
    with path.open("a") as file:
        file.write('{"event": "train", "st')
    return path


def test_lines_behind_the_checkpoint_are_cut(written):
    writer = JsonLines(written, RunState(step=3, evaluated=2))
    writer.write("train", 4, {"loss": 1.0})
    writer.close()
    assert lines_of(written) == [("train", 1), ("train", 2), ("evaluation", 2), ("train", 3), ("train", 4)]


def test_evaluation_that_the_checkpoint_does_not_know_is_cut(written):
    JsonLines(written, RunState(step=4, evaluated=2)).close()
    assert lines_of(written)[-1] == ("train", 4)


def test_run_from_step_0_starts_an_empty_file(written):
    JsonLines(written, RunState()).close()
    assert lines_of(written) == []


def test_not_a_number_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLines(path, RunState())
    writer.write("non_finite", 3, {"loss": float("nan"), "grad_norm": float("inf"), "keys": ["a"]})
    writer.close()
    line = {"event": "non_finite", "step": 3, "loss": None, "grad_norm": None, "keys": ["a"]}
    assert path.read_text() == json.dumps(line) + "\n"


def test_full_disk_under_tensorboard_is_said_and_closing_hides_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # its writing thread's, which goes on failing
    writer = TensorBoard(tmp_path / "tensorboard", RunState())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(RunError, match="tensorboard can't be written .*resume=true"):
            for step in range(1_000_000):  # until its thread has met the limit
                writer.write("train", step, {"loss": 1.0})
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in capsys.readouterr().err


class Kept:
    """A writer that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def write(self, event: str, step: int, values: dict) -> None:
        self.events.append((event, step))

    def close(self) -> None:
        self.events.append(("closed", 0))


def test_every_third_step_and_the_last_are_logged():
    kept = Kept()
    progress = Progress(None, [kept], log_every=3, total_steps=8)
    for step in range(1, 9):
        progress.step(step, VALUES)
    progress.log("evaluation", 8, {})
    progress.close()
    assert kept.events == [("train", 3), ("train", 6), ("train", 8), ("evaluation", 8), ("closed", 0)]


def test_bar_shows_losses_scale_rates_and_memory(tmp_path, capsys):
    progress = open_progress(runs.small_recipe(tmp_path / "base", tmp_path / "run"), 3, RunState(step=1), True)
    for step in (2, 3):
        progress.step(step, VALUES)
    progress.say("a note")
    progress.close()
    printed = capsys.readouterr().err
    for part in ("3/3", "contrastive=1.500", "ntp=1.000", "scale=14.3", "samples/s=8", "tokens/s=1234", "GB=1.2"):
        assert part in printed
    assert "a note\n" in printed


def test_only_the_first_process_writes(tmp_path, capsys):
    progress = open_progress(runs.small_recipe(tmp_path / "base", tmp_path / "run"), 3, RunState(), False)
    progress.step(3, VALUES)
    progress.say("a note")
    progress.close()
    assert not (tmp_path / "run").exists() and capsys.readouterr().err == ""


def test_rates_are_those_of_the_last_20_steps():
    meter = Meter(torch.device("cpu"))
    for _ in range(30):
        meter.rates(100.0, 1, 1)
    for _ in range(20):
        rates = meter.rates(0.5, pairs=4, tokens=100)
    assert (rates["samples_per_s"], rates["tokens_per_s"]) == (8.0, 200.0)
    assert 0.01 < rates["memory_gb"] < 1000


def test_without_the_resource_module_as_on_windows_memory_is_not_a_number(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    meter = runpy.run_path(progress_module.__file__)["Meter"](torch.device("cpu"))
    assert math.isnan(meter.rates(1.0, 1, 1)["memory_gb"])


class Unread:
    """A stderr whose reader has gone, as behind `| head`, or with a terminal that was closed."""

    def __init__(self, error: OSError) -> None:
        self.error, self.writes = error, 0

    def write(self, text: str) -> None:
        self.writes += 1
        raise self.error

    flush = isatty = lambda self: False


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("from_start", [True, False])
def test_a_run_goes_on_without_its_bar_where_nobody_reads_it(monkeypatch, error, from_start):
    unread = Unread(error)
    if from_start:
        monkeypatch.setattr(sys, "stderr", unread)
    bar = progress_module.Bar("small", 10, 0)
    monkeypatch.setattr(sys, "stderr", unread)
    bar.say("a warning")
    before = unread.writes
    for step in range(1, 11):
        bar.show(step, VALUES)
    bar.say("an end")
    bar.close()
    assert 0 < before == unread.writes
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(can_draw).result()  # a bar of another thread doesn't hang


def can_draw() -> bool:
    for lock in tqdm.get_lock().locks:
        if not lock.acquire(timeout=5):
            return False
        lock.release()
    return True


def test_a_full_disk_under_tensorboard_is_one_error_and_no_traceback_of_its_thread(tmp_path, monkeypatch):
    def refuse(*event: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    printed = []
    monkeypatch.setattr(threading, "excepthook", hook := printed.append)
    board = TensorBoard(tmp_path, RunState())
    monkeypatch.setattr(RecordWriter, "write", refuse)
    with pytest.raises(RunError, match="can't be written .*No space left"):
        for step in range(1000):
            board.write("train", step, {"loss": 1.0})
            time.sleep(0.001)
    board.close()
    assert not printed and threading.excepthook is hook


def test_a_writer_that_ends_badly_is_told_and_hides_nothing(tmp_path, capsys):
    class Bad:
        def write(self, event, step, values): ...

        def close(self):
            raise ConnectionError("wandb is gone")

    writer = JsonLines(tmp_path / "metrics.jsonl", RunState())
    Progress(progress_module.Bar("small", 10, 0), [Bad(), writer], 1, 10).close()
    assert writer._file.closed
