"""Runs that are killed, stopped and resumed end in the very adapter of the run that was left alone."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.training import runs
from vladva_training.config import Recipe


@pytest.fixture(scope="module")
def expected(base_with_pairs, tmp_path_factory) -> dict[str, bytes]:
    """The adapter of the run that was left alone."""
    recipe = runs.small_recipe(base_with_pairs, tmp_path_factory.mktemp("whole") / "run")
    status, printed = runs.finish(recipe)
    assert status == 0, printed
    return runs.adapter(recipe)


@pytest.fixture
def recipe(base_with_pairs, tmp_path) -> Recipe:
    return runs.small_recipe(base_with_pairs, tmp_path / "run", resume=True)


def assert_ends_as(expected: dict[str, bytes], recipe: Recipe) -> None:
    """Resume a run to its end: the expected adapter, no step twice, nothing left behind."""
    status, printed = runs.finish(recipe)
    assert status == 0, printed
    assert runs.adapter(recipe) == expected
    assert [line["step"] for line in runs.metrics(recipe)] == list(range(1, runs.STEPS + 1))
    assert not list(Path(recipe.output_dir).rglob(".*"))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 11))])
def test_three_kills_at_random_moments(recipe, expected, seed):
    moments = random.Random(seed)
    for step in sorted(moments.sample(range(1, runs.STEPS), 3)):
        process = runs.start(recipe)
        runs.wait_for(lambda step=step: runs.has_reached(recipe, step), process)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
    assert_ends_as(expected, recipe)


@pytest.mark.wide
@pytest.mark.parametrize("place", ["checkpoints/.step-00000006.writing-*", ".adapter.writing-*"])
def test_kill_while_a_directory_is_written(recipe, expected, place):
    process = runs.start(recipe)
    runs.wait_for(lambda: any(Path(recipe.output_dir).glob(place)), process)
    process.kill()
    process.join()
    assert_ends_as(expected, recipe)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 77), (signal.SIGINT, 130)])
def test_signal_saves_and_exits_with_the_code(base_with_pairs, recipe, expected, number, code):
    own_code = runs.small_recipe(base_with_pairs, Path(recipe.output_dir), run={"sigterm_exit_code": 77})
    process = runs.start(own_code)
    runs.wait_for(lambda: runs.has_reached(recipe, 4), process)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == code
    saved = max(Path(recipe.output_dir, "checkpoints").iterdir()).name
    assert saved == f"step-{runs.metrics(recipe)[-1]['step']:08d}"
    assert f"resume=true continues from step {int(saved[-8:])}" in runs.log(recipe)
    assert_ends_as(expected, recipe)


@pytest.mark.wide
def test_sigterm_to_all_processes_of_a_run_with_workers(base_with_pairs, recipe, expected):
    """As a cluster's scheduler sends it."""
    process = runs.start(
        runs.small_recipe(base_with_pairs, Path(recipe.output_dir), data={"num_workers": 2}), before=os.setsid
    )
    runs.wait_for(lambda: runs.has_reached(recipe, 4), process)
    os.killpg(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143, runs.log(recipe)
    assert_ends_as(expected, recipe)


def test_resume_without_a_checkpoint_starts_at_step_0(recipe, expected):
    assert_ends_as(expected, recipe)
    assert "starting at step 0" in runs.log(recipe)


@pytest.mark.wide
def test_resume_of_a_finished_run_writes_its_adapter_again(recipe, expected):
    assert runs.finish(recipe)[0] == 0
    adapter = Path(recipe.output_dir) / "adapter"
    adapter.rename(adapter.with_name("old"))
    assert_ends_as(expected, recipe)
