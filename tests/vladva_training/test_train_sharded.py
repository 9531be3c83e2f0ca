"""Full tuning by two gloo processes, that share the weights: as by one, also if stopped or killed."""

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.training import runs
from vladva_training.config import Recipe
from vladva_training.processes import sharding
from vladva_training.processes.distributed import Processes
from vladva_training.run import evaluation
from vladva_training.run.preflight import check_sharding
from vladva_training.step.grad_cache import GlobalStep

STEPS = 4
LAST = f"checkpoints/step-{STEPS:08d}/trainer.safetensors"
FILES = (LAST, "lvlm/model.safetensors", "adapter/soft_prompt.safetensors")


@pytest.fixture(scope="module")
def pairs(base_with_pairs) -> Path:
    """Pairs of which every second lacks a long caption and every fourth a short one."""
    rows = [json.loads(line) for line in (base_with_pairs.parent / "pairs.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        short, long = row["captions"][:2], row["captions"][2:]
        row["captions"] = long if number % 4 == 1 else short if number % 2 else short + long
    path = base_with_pairs.parent / "gaps.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def recipe_at(base_with_pairs, pairs):
    """A function: output directory and changes -> a small full tuning with an average and evaluations."""
    changes = {
        "model": {"train": "full"},
        "data": {"train": (f"jsonl:{pairs}",), "evaluation": f"jsonl:{pairs}"},
        "loss": {"contrastive": "sigmoid"},
        "optim": {"learning_rate": 1e-4, "ema_decay": 0.9},
        "batch": {"micro_size": 1},
        "run": {"steps": STEPS, "checkpoint_every": 2, "evaluate_every": 2, "best_metric": "ntp_loss"},
    }
    return lambda place, **other: runs.small_recipe(base_with_pairs, place, **{**changes, **other})


def finish(recipe: Recipe, before=None) -> list[int]:
    """Run to the end with two processes; return their exit statuses."""
    group = runs.start_group(recipe, 2, before=before)
    for process in group:
        process.join(120)
    for process in group:
        process.kill()
    return [process.exitcode for process in group]


@pytest.fixture(scope="module")
def pair(recipe_at, tmp_path_factory) -> Recipe:
    """The run of two processes that was left alone."""
    recipe = recipe_at(tmp_path_factory.mktemp("pair") / "run")
    assert finish(recipe) == [0, 0], runs.log(recipe)
    return recipe


@pytest.fixture(scope="module")
def alone(recipe_at, tmp_path_factory) -> Recipe:
    """The run of one process."""
    recipe = recipe_at(tmp_path_factory.mktemp("alone") / "run")
    assert runs.finish(recipe)[0] == 0, runs.log(recipe)
    return recipe


def tensors(recipe: Recipe, name: str) -> dict[str, torch.Tensor]:
    return load_file(Path(recipe.output_dir) / name)


def contents(recipe: Recipe) -> dict[str, bytes]:
    return {name: (Path(recipe.output_dir) / name).read_bytes() for name in FILES}


def assert_same_up_to_rounding(found: Recipe, expected: Recipe, base: Path) -> None:
    """Every stored number is the other run's to 1e-5, and the weights have moved much further."""
    for name in FILES:
        mine, theirs = tensors(found, name), tensors(expected, name)
        assert mine.keys() == theirs.keys()
        assert all(mine[key].dtype == theirs[key].dtype for key in mine)
        assert max(float((mine[key] - theirs[key]).abs().max()) for key in mine) < 1e-5, name
    before, after = load_file(base / "model.safetensors"), tensors(found, "lvlm/model.safetensors")
    assert min(float((before[k] - after[k]).abs().max()) for k in before if "language_model" in k) > 1e-4


@pytest.mark.wide
def test_files_and_figures_equal_those_of_one_process(pair, alone, base_with_pairs):
    assert_same_up_to_rounding(pair, alone, base_with_pairs)
    assert runs.files(Path(pair.output_dir) / "lvlm").keys() == runs.files(Path(alone.output_dir) / "lvlm").keys()
    assert runs.adapter(pair).keys() == runs.adapter(alone).keys()
    for event, keys in (("train", ("loss", "ntp", "grad_norm")), ("evaluation", ("text_to_image_R@1", "ntp_loss"))):
        mine, theirs = runs.metrics(pair, event), runs.metrics(alone, event)
        assert [line["step"] for line in mine] == [line["step"] for line in theirs]
        for found, expected in zip(mine, theirs, strict=True):
            assert [found.get(key) for key in keys] == pytest.approx([expected.get(key) for key in keys], rel=1e-4)


@pytest.mark.wide
def test_killed_and_resumed_it_ends_in_the_same_bytes(pair, recipe_at, tmp_path):
    recipe = recipe_at(tmp_path / "run", resume=True)
    group = runs.start_group(recipe, 2)
    runs.wait_for(lambda: runs.has_reached(recipe, 3), group[0])
    for process in group:
        process.kill()
        process.join()
    assert not (tmp_path / "run" / LAST).exists()
    assert finish(recipe) == [0, 0], runs.log(recipe)
    assert "continuing from" in runs.log(recipe)
    assert contents(recipe) == contents(pair)


@pytest.mark.slow
def test_a_tied_head_and_checkpointed_layers_in_bfloat16(bases, recipe_at, tmp_path):
    """Qwen2-VL's head is its embedding. bfloat16 products round: only the sizes of the steps' figures are compared."""
    model = {"train": "full", "name": f"local-dir:{bases['qwen2_vl']}", "gradient_checkpointing": True}
    for autocast, tolerance in (("fp32", 1e-4), ("bf16", 5e-2)):
        one, two = (recipe_at(tmp_path / f"{autocast}{n}", model=model, batch={"autocast": autocast}) for n in (1, 2))
        assert runs.finish(one)[0] == 0 and finish(two) == [0, 0], runs.log(two)
        for key in ("loss", "grad_norm"):
            mine, theirs = ([line[key] for line in runs.metrics(recipe)] for recipe in (two, one))
            assert mine == pytest.approx(theirs, rel=tolerance)
        mine, theirs = (tensors(recipe, "lvlm/model.safetensors") for recipe in (two, one))
        assert mine.keys() == theirs.keys() and not any("lm_head" in name for name in mine)
        if autocast == "fp32":
            assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 1e-5


@pytest.mark.slow
def test_one_process_continues_what_two_began(alone, recipe_at, tmp_path, base_with_pairs):
    recipe = recipe_at(tmp_path / "run", resume=True)
    group = runs.start_group(recipe, 2)
    runs.wait_for(lambda: runs.has_reached(recipe, 2), group[0])
    os.kill(group[1].pid, signal.SIGTERM)
    for process in group:
        process.join(120)
    assert [process.exitcode for process in group] == [143, 143], runs.log(recipe)
    status, printed = runs.finish(recipe)
    assert status == 0 and "world_size: 2 in the checkpoint, 1 now" in printed, printed
    assert_same_up_to_rounding(recipe, alone, base_with_pairs)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_ends_both_and_names_the_last_checkpoint(recipe_at, tmp_path, rank):
    recipe = recipe_at(tmp_path / "run")
    assert finish(recipe, before=partial(fail_in_step_4, str(rank))) == [1, 1], runs.log(recipe)
    logs = [Path(f"{recipe.output_dir}.log{ending}").read_text() for ending in ("", "1")]
    assert "made so" in logs[rank] and "step-00000002" in logs[rank] and "not saved" in logs[rank]
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir() if path.is_dir())
    assert kept == ["step-00000000", "step-00000002"]


def fail_in_step_4(rank: str) -> None:
    call, left = GlobalStep.__call__, iter(range(3))

    def fail(self: GlobalStep, batch: object) -> object:
        if next(left, None) is None and os.environ["RANK"] == rank:
            raise RuntimeError("made so")
        return call(self, batch)

    GlobalStep.__call__ = fail


@pytest.mark.slow
def test_an_evaluation_that_fails_in_the_first_process_ends_both(recipe_at, pairs, tmp_path):
    recipe = recipe_at(tmp_path / "run")
    assert finish(recipe, before=break_evaluation) == [1, 1]
    assert "made so" in runs.log(recipe)
    assert "process 0 can't continue" in Path(f"{recipe.output_dir}.log1").read_text()


def break_evaluation() -> None:
    def broken(*_: object) -> Iterator:
        raise OSError("made so")
        yield

    evaluation.prepared = broken


@pytest.mark.slow
def test_a_lora_run_is_not_sharded(recipe_at, tmp_path):
    """Its processes would fail if it were: nothing may be sharded in them."""
    recipe = recipe_at(tmp_path / "run", model={"train": "lora", "lora_rank": 2, "lora_alpha": 2})
    assert finish(recipe, before=forbid_sharding) == [0, 0], runs.log(recipe)


def forbid_sharding() -> None:
    import vladva_training.train

    vladva_training.train.shard = None


def test_what_the_torch_at_hand_lacks_is_named(monkeypatch):
    sharding.require_torch(torch.device("cpu"))
    monkeypatch.setattr(sharding, "SUM_ONLY", "set_nothing_of_this_name")
    sharding.require_torch(torch.device("cuda"))
    with pytest.raises(
        ValueError, match=f"torch {torch.__version__.split('+')[0]}.*set_nothing_of_this_name.*one process"
    ):
        sharding.require_torch(torch.device("cpu"))
    monkeypatch.setattr(sharding, "fully_shard", lambda module, mesh=None: module)
    with pytest.raises(ValueError, match="ignored_params"):
        sharding.require_torch(torch.device("cuda"))


def test_a_compiled_model_is_refused_before_it_is_loaded(recipe_at, tmp_path):
    recipe = recipe_at(tmp_path / "run", model={"train": "full", "compile": True})
    check_sharding(recipe, Processes(None, torch.device("cpu"), 0, 1))
    with pytest.raises(ValueError, match="model.compile=false"):
        check_sharding(recipe, Processes(None, torch.device("cpu"), 0, 2))
