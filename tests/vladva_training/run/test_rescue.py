"""Whatever ends a run, the state of its last whole step is saved, and the run goes on from it to the same bits."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.support.training import runs
from vladva_clip.records.records import Record
from vladva_training.config import Recipe
from vladva_training.data.examples import ExampleMaker
from vladva_training.processes.errors import RunError
from vladva_training.processes.signals import EndedAtOnce
from vladva_training.run import loop as running
from vladva_training.run.measuring import Measuring
from vladva_training.run.progress import JsonLines
from vladva_training.run.trackers import TensorBoard
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.optim import EMA
from vladva_training.train import train

pytestmark = pytest.mark.wide

CALLS = 5  # after so many calls a function fails; a checkpoint is due every 3 steps


def recipe_of(base: Path, directory: Path, **changes: dict) -> Recipe:
    """A run with an average, evaluated every four steps."""
    changes = {"optim": {"ema_decay": 0.5}, "data": {"evaluation": f"jsonl:{base.parent / 'pairs.jsonl'}"}} | changes
    return runs.small_recipe(base, directory, **changes)


@pytest.fixture(scope="module")
def expected(base_with_pairs, tmp_path_factory) -> dict[str, bytes]:
    """The adapter of the run that was left alone."""
    recipe = recipe_of(base_with_pairs, tmp_path_factory.mktemp("whole") / "run")
    assert train(recipe) == 0
    return runs.adapter(recipe)


@pytest.fixture
def recipe(base_with_pairs, tmp_path) -> Recipe:
    return recipe_of(base_with_pairs, tmp_path / "run")


def failing(monkeypatch, owner: type, name: str, error: BaseException, calls: int = CALLS) -> None:
    """Let a function of the program do its work `calls` times and then raise."""
    function, left = getattr(owner, name), iter(range(calls))

    def fail(*arguments: object, **options: object) -> object:
        if next(left, None) is None:
            raise error
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, fail)


def saved_steps(recipe: Recipe) -> list[int]:
    return sorted(int(path.name[5:]) for path in Path(recipe.output_dir, "checkpoints").glob("step-*"))


def assert_goes_on(monkeypatch, recipe: Recipe, expected: dict[str, bytes]) -> None:
    """Resume a run to its end: the expected adapter, no step twice, nothing left behind."""
    monkeypatch.undo()
    assert train(replace(recipe, resume=True)) == 0
    assert runs.adapter(recipe) == expected
    assert [line["step"] for line in runs.metrics(recipe)] == list(range(1, runs.STEPS + 1))
    assert [line["step"] for line in runs.metrics(recipe, "evaluation")] == [0, 4, 8, 12]
    assert not list(Path(recipe.output_dir).rglob(".*"))


WHERE = {
    "computing": (GlobalStep, "__call__", torch.OutOfMemoryError("CUDA out of memory"), "out of memory: lower", 5),
    "computing on": (GlobalStep, "__call__", RuntimeError("CUDA error: unspecified launch failure"), "CUDA error", 5),
    "logging": (TensorBoard, "write", ConnectionError("the disk is gone"), "the disk is gone", 4),
    "the schedule": (running.Run, "_stopped", MemoryError(), "out of memory", 4),
}


@pytest.mark.parametrize("place", sorted(WHERE))
def test_an_error_in_a_run_saves_the_last_whole_step(monkeypatch, recipe, expected, place):
    owner, name, error, what, step = WHERE[place]
    failing(monkeypatch, owner, name, error)
    with pytest.raises(RunError, match=what) as caught:
        train(recipe)
    saved = saved_steps(recipe)[-1]
    assert f"checkpoints/step-{saved:08d}; resume=true" in str(caught.value)
    assert saved == step or place == "the schedule"
    assert "\n" not in str(caught.value) and "Traceback" in Path(recipe.output_dir, "last_error.txt").read_text()
    assert_goes_on(monkeypatch, recipe, expected)


def test_an_error_in_the_middle_of_a_change_saves_nothing_half(monkeypatch, recipe, expected):
    """The parameters are of step 6, the average of step 5."""
    failing(monkeypatch, EMA, "update", RuntimeError("made so"))
    with pytest.raises(RunError, match="incomplete.*last good checkpoint is .*step-00000003"):
        train(recipe)
    assert saved_steps(recipe) == [3]
    assert_goes_on(monkeypatch, recipe, expected)


@pytest.mark.parametrize(("after", "step"), [(0, 0), (2, 8)])
def test_an_error_in_an_evaluation_saves_the_state_before_it(monkeypatch, recipe, expected, after, step):
    failing(monkeypatch, Measuring, "figures", RuntimeError("made so"), calls=after)
    with pytest.raises(RunError, match=f"RuntimeError: made so. The state is in .*step-0000000{step}"):
        train(recipe)
    assert_goes_on(monkeypatch, recipe, expected)


def test_metrics_that_can_t_be_written_save_the_state(monkeypatch, recipe):
    failing(monkeypatch, JsonLines, "write", RunError("metrics.jsonl can't be written"))
    with pytest.raises(RunError, match="metrics.jsonl can't be written. The state is in"):
        train(recipe)
    assert saved_steps(recipe)[-1] == 4  # four steps and the evaluation before them were logged


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_the_program_saves_the_state_and_goes_on_ending_it(monkeypatch, capsys, recipe, expected, error):
    failing(monkeypatch, GlobalStep, "__call__", error)
    with pytest.raises(type(error)):
        train(recipe)
    assert saved_steps(recipe)[-1] == 5 and "The state is in" in capsys.readouterr().err
    assert_goes_on(monkeypatch, recipe, expected)


def test_a_second_ctrl_c_ends_a_run_at_once(monkeypatch, recipe, expected):
    failing(monkeypatch, GlobalStep, "__call__", EndedAtOnce(130))
    with pytest.raises(EndedAtOnce):
        train(recipe)
    assert saved_steps(recipe) == [3]
    assert_goes_on(monkeypatch, recipe, expected)


def test_a_state_that_can_t_be_saved_names_the_one_that_is(monkeypatch, recipe):
    failing(monkeypatch, GlobalStep, "__call__", RuntimeError("CUDA error"))
    failing(monkeypatch, running.Run, "_fill", RuntimeError("CUDA error, again"), calls=1)
    with pytest.raises(RunError, match=r"CUDA error. The state can't be saved .*again.*last good.*step-00000003"):
        train(recipe)


def test_memory_that_a_model_lacks_is_told_before_the_first_step(monkeypatch, recipe):
    failing(monkeypatch, EMA, "__init__", torch.OutOfMemoryError("CUDA out of memory"), calls=0)
    with pytest.raises(RunError, match="out of memory"):
        train(recipe)


@pytest.mark.parametrize("step", [0, 4])
def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(monkeypatch, recipe, expected, step):
    figures, seen = Measuring.figures, []

    def interrupted(self: Measuring, stop: Callable[[], bool]) -> dict | None:
        if len(seen) == step // 4:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(figures(self, stop))
        return seen[-1]

    monkeypatch.setattr(Measuring, "figures", interrupted)
    assert train(recipe) == 143
    assert seen[-1] is None and saved_steps(recipe)[-1] == step
    assert_goes_on(monkeypatch, recipe, expected)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_wait_for_a_batch(base_with_pairs, tmp_path, number, code):
    recipe = recipe_of(base_with_pairs, tmp_path / "run", data={"num_workers": 1, "evaluation": None})
    process = runs.start(recipe, before=hang_at_batch_4)
    runs.wait_for(lambda: runs.has_reached(recipe, 4), process)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code, runs.log(recipe)
    assert "resume=true continues from step 4" in runs.log(recipe)
    assert saved_steps(recipe)[-1] == 4


def hang_at_batch_4() -> None:
    make = ExampleMaker.make

    def hang(self: ExampleMaker, record: Record, epoch: int, position: int) -> tuple:
        if position >= 16:
            time.sleep(600)
        return make(self, record, epoch, position)

    ExampleMaker.make = hang


def test_a_killed_worker_saves_the_state_and_the_run_goes_on_to_the_same_bits(
    monkeypatch, base_with_pairs, tmp_path, expected
):
    data = {"num_workers": 2, "evaluation": f"jsonl:{base_with_pairs.parent / 'pairs.jsonl'}"}
    recipe = recipe_of(base_with_pairs, tmp_path / "run", data=data)
    status, printed = runs.finish(recipe, before=kill_own_worker_in_step_5)
    assert status == 1 and "RunError: loader worker" in printed, printed
    assert "was killed by SIGKILL" in printed and "The state is in" in printed
    assert saved_steps(recipe)[-1] >= 4
    assert_goes_on(monkeypatch, recipe, expected)


def kill_own_worker_in_step_5() -> None:
    update, left = EMA.update, iter(range(4))

    def kill(self: EMA) -> None:
        if next(left, None) is None:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
        update(self)

    EMA.update = kill


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_processes_that_fails_does_not_hang_the_other(base_with_pairs, tmp_path, rank):
    recipe = recipe_of(base_with_pairs, tmp_path / "run", data={"evaluation": None})
    group = runs.start_group(recipe, 2, before=partial(fail_in_step_6, str(rank)))
    for process in group:
        process.join(60)
    assert [process.exitcode for process in group] == [1, 1], runs.log(recipe)
    assert saved_steps(recipe)[-1] == 5, runs.log(recipe)


def fail_in_step_6(rank: str) -> None:
    call, left = GlobalStep.__call__, iter(range(5))

    def fail(self: GlobalStep, batch: object) -> object:
        if next(left, None) is None and os.environ["RANK"] == rank:
            raise RuntimeError("made so")
        return call(self, batch)

    GlobalStep.__call__ = fail
