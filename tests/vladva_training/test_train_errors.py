"""Errors of a run: reported clearly, and nothing is lost."""

import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.training import runs
from vladva_clip.storage import file_locks
from vladva_training.config import Recipe
from vladva_training.processes.distributed import Processes
from vladva_training.processes.errors import RunError
from vladva_training.step.batches import Batch
from vladva_training.step.grad_cache import GlobalStep, StepResult
from vladva_training.train import train


@pytest.fixture
def recipe(base_with_pairs, tmp_path) -> Recipe:
    return runs.small_recipe(base_with_pairs, tmp_path / "run")


@pytest.fixture
def poison(monkeypatch) -> list[int]:
    """The steps, counted from 1, whose images are infinite."""
    steps, compute, count = [], GlobalStep.__call__, iter(range(1, 1000))

    def poisoned(self: GlobalStep, batch: Batch) -> StepResult:
        factor = float("inf") if next(count) in steps else 1.0
        return compute(self, replace(batch, images=batch.images * factor))

    monkeypatch.setattr(GlobalStep, "__call__", poisoned)
    return steps


def limit_file_size() -> None:
    """Limit files to some kilobytes, so that writes fail with a real OSError as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_non_finite_loss_names_its_batch_with_the_state_saved(recipe, poison):
    poison.append(5)
    with pytest.raises(RunError, match="step 5 is not finite: loss nan.*its batch is '") as error:
        train(recipe)
    assert "step-00000004" in str(error.value) and "optim.on_non_finite=skip" in str(error.value)
    assert Path(recipe.output_dir, "checkpoints", "step-00000004").is_dir()
    [line] = runs.metrics(recipe, "non_finite")
    assert line["step"] == 5 and len(line["keys"]) == 4 and line["loss"] is None
    assert all(repr(key) in str(error.value) for key in line["keys"])


def test_run_that_stopped_at_a_non_finite_loss_continues_with_skip(base_with_pairs, recipe, poison):
    poison += [5, 6]  # 6 is the same step again
    with pytest.raises(RunError):
        train(recipe)
    assert (
        train(runs.small_recipe(base_with_pairs, Path(recipe.output_dir), resume=True, optim={"on_non_finite": "skip"}))
        == 0
    )
    assert runs.metrics(recipe)[-1]["skipped"] == 1
    assert [line["step"] for line in runs.metrics(recipe)] == list(range(1, runs.STEPS + 1))
    assert len(runs.metrics(recipe, "non_finite")) == 1


def test_skipped_steps_change_nothing_but_the_counters(base_with_pairs, tmp_path, poison):
    poison += range(1, runs.STEPS + 1)
    recipe = runs.small_recipe(base_with_pairs, tmp_path / "run", optim={"on_non_finite": "skip"}, run={"keep_last": 9})
    assert train(recipe) == 0
    first, last = (Path(recipe.output_dir, "checkpoints", f"step-{step:08d}") for step in (3, 12))
    name = "trainer.safetensors"
    assert (first / name).read_bytes() == (last / name).read_bytes()
    assert runs.metrics(recipe)[-1]["skipped"] == runs.STEPS


@pytest.mark.wide
def test_full_disk_is_reported_and_the_last_good_checkpoint_is_intact(base_with_pairs, tmp_path):
    whole = runs.small_recipe(base_with_pairs, tmp_path / "whole")
    assert train(whole) == 0
    recipe = runs.small_recipe(base_with_pairs, tmp_path / "run", resume=True)
    process = runs.start(recipe)
    checkpoints = Path(recipe.output_dir) / "checkpoints"
    runs.wait_for((checkpoints / "step-00000003").exists, process)
    process.kill()
    process.join()
    before = {path.name: runs.files(path) for path in checkpoints.glob("step-*")}
    status, printed = runs.finish(recipe, before=limit_file_size)
    assert status == 1
    assert "can't be written" in printed and "File too large" in printed
    assert f"the last good checkpoint is {checkpoints / max(before)}" in printed
    assert {path.name: runs.files(path) for path in checkpoints.glob("step-*")} == before
    assert not list(Path(recipe.output_dir).rglob(".*"))
    assert runs.finish(recipe)[0] == 0
    assert runs.adapter(recipe) == runs.adapter(whole)


def test_truncated_checkpoint_is_named_with_the_one_before(recipe):
    assert train(recipe) == 0
    tensors = Path(recipe.output_dir, "checkpoints", "step-00000012", "trainer.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"step-00000012/trainer.safetensors can't be read.*from step-0{7}9"):
        train(replace(recipe, resume=True))


def test_batch_that_processes_cannot_share():
    processes = Processes(None, torch.device("cpu"), rank=0, world_size=3)
    with pytest.raises(ValueError, match="batch.size is 16, which 3 processes .*15 or 18"):
        processes.share(16)


def test_batch_larger_than_the_data(base_with_pairs, tmp_path):
    with pytest.raises(ValueError, match="batch of 64 is larger than the 20 records of an epoch"):
        train(runs.small_recipe(base_with_pairs, tmp_path / "run", batch={"size": 64}))


@pytest.fixture
def half_broken(base_with_pairs, tmp_path) -> Recipe:
    """Half of the records have a missing image."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text(20 * '{"image_path": "gone.png", "caption": "a red circle"}\n')
    sources = (f"jsonl:{base_with_pairs.parent / 'pairs.jsonl'}", f"jsonl:{broken}")
    return runs.small_recipe(base_with_pairs, tmp_path / "run", data={"train": sources, "max_bad_share": 1.0})


def test_too_many_bad_records_stop_the_run_with_the_state_saved(half_broken):
    with pytest.raises(RunError, match="(?s)100 records in a row of .*broken.jsonl are bad.*gone.png") as error:
        train(half_broken)
    saved = max(Path(half_broken.output_dir, "checkpoints").iterdir())
    assert f"The state is in {saved}" in str(error.value)


@pytest.mark.wide
def test_too_many_bad_records_of_one_process_stop_all(half_broken):
    group = runs.start_group(half_broken, 2)
    for process in group:
        process.join(120)
    for process in group:
        process.kill()
    assert [process.exitcode for process in group] == [1, 1], runs.log(half_broken)
    assert "RunError: 100 records in a row of" in runs.log(half_broken)


def test_unknown_best_metric_names_the_known_ones(base_with_pairs, tmp_path):
    changes = {
        "data": {"evaluation": f"jsonl:{base_with_pairs.parent / 'pairs.jsonl'}"},
        "run": {"best_metric": "recall"},
    }
    with pytest.raises(ValueError, match="run.best_metric is 'recall'.*image_to_text_R@1, .*ntp_loss"):
        train(runs.small_recipe(base_with_pairs, tmp_path / "run", **changes))


def test_evaluation_source_without_a_usable_record_is_refused_before_the_first_step(base_with_pairs, tmp_path):
    place = tmp_path / "gone.jsonl"
    place.write_text('{"image_path": "gone.png", "caption": "a red circle"}\n' * 3)
    recipe = runs.small_recipe(base_with_pairs, tmp_path / "run", data={"evaluation": f"jsonl:{place}"})
    with pytest.raises(ValueError, match="gone.jsonl: none of its 3 records"):
        train(recipe)
    assert not Path(recipe.output_dir, "metrics.jsonl").exists()


def test_best_metric_without_a_source(base_with_pairs, tmp_path):
    with pytest.raises(ValueError, match="run.best_metric is 'ntp_loss', but data.evaluation is none"):
        train(runs.small_recipe(base_with_pairs, tmp_path / "run", run={"best_metric": "ntp_loss"}))


def test_output_dir_that_is_a_file(base_with_pairs, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="output_dir .*run can't be written"):
        train(runs.small_recipe(base_with_pairs, tmp_path / "run"))


def test_perhaps_unintended_settings_are_warned_about_by_name(base_with_pairs, tmp_path, capsys):
    changes = {"data": {"train": ("scenes:train:44",), "short_max_tokens": 90}, "batch": {"size": 6, "micro_size": 8}}
    assert train(runs.small_recipe(base_with_pairs, tmp_path / "run", **changes, run={"steps": None})) == 0
    printed = capsys.readouterr().err
    assert "the last batch is filled up with 4 records of the next" in printed
    assert "batch.size 6 splits groups of [4]" in printed
    assert "batch.micro_size 8 is more than a process's 6 images" in printed


def test_parts_of_the_loss_without_data_are_warned_about_by_name(base_with_pairs, tmp_path, capsys):
    lines = [json.loads(line) for line in (base_with_pairs.parent / "pairs.jsonl").read_text().splitlines()]
    single = [{**line, "captions": line["captions"][:1]} for line in lines]
    place = base_with_pairs.parent / "single.jsonl"
    place.write_text("".join(json.dumps(line) + "\n" for line in single))

    def warned(spec: str) -> list[str]:
        changes = {"data": {"train": (spec,), "short_max_tokens": 90}, "run": {"steps": 1}}
        changes["loss"] = {"hard_negatives": 2, "text_text_weight": 0.5}
        assert train(runs.small_recipe(base_with_pairs, tmp_path / spec.partition(":")[0], **changes)) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "adds nothing" in line]

    long, negatives, texts = warned(f"jsonl:{place}")
    assert long.startswith("warning: loss.ntp_weight 1 adds nothing: none of the 20 records checked in jsonl:")
    assert "loss.hard_negatives 2 adds nothing: none of the 10 records read from jsonl:" in negatives
    assert "loss.text_text_weight 0.5 adds nothing: no image checked in jsonl:" in texts
    assert warned("scenes:train:44") == []


def test_a_second_run_in_one_output_dir_is_refused_and_harms_nothing(base_with_pairs, recipe):
    process = runs.start(recipe)
    runs.wait_for(Path(recipe.output_dir, ".lock").exists, process)
    with pytest.raises(ValueError, match=r"output_dir .*another process \(\d+ on .*\) is writing to"):
        train(runs.small_recipe(base_with_pairs, Path(recipe.output_dir), seed=5))
    process.join(120)
    assert process.exitcode == 0, runs.log(recipe)
    assert len(runs.metrics(recipe)) == runs.STEPS and not Path(recipe.output_dir, ".lock").exists()


@pytest.mark.slow
def test_all_processes_of_a_second_run_are_refused(base_with_pairs, recipe):
    Path(recipe.output_dir).mkdir()
    with file_locks.held(Path(recipe.output_dir) / file_locks.LOCK):
        group = runs.start_group(recipe, 2)
        for process in group:
            process.join(120)
    assert [process.exitcode for process in group] == [1, 1]
    for log in (f"{recipe.output_dir}.log", f"{recipe.output_dir}.log1"):
        assert "ValueError: output_dir" in Path(log).read_text() and "is writing to" in Path(log).read_text()


def test_a_finished_adapter_without_checkpoints_is_not_overwritten(base_with_pairs, recipe):
    adapter = Path(recipe.output_dir, "adapter")
    adapter.mkdir(parents=True)
    for resume in (False, True):
        with pytest.raises(ValueError, match="adapter exists, .* no checkpoint"):
            train(replace(recipe, resume=resume))
    adapter.rmdir()
    stale = Path(recipe.output_dir, "bad_records-rank3.jsonl")  # of a run that was killed before its first checkpoint
    stale.write_text("{}\n")
    assert train(replace(recipe, run=replace(recipe.run, steps=1))) == 0 and not stale.exists()


def test_an_output_dir_that_is_not_utf8_is_refused_at_once(base_with_pairs, tmp_path):
    with pytest.raises(ValueError, match="is not UTF-8"):
        train(runs.small_recipe(base_with_pairs, tmp_path / os.fsdecode(b"caf\xe9")))
