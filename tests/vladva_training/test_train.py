"""What a run writes, what a resumed run may change, and runs of several processes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import vladva_clip
from tests.support.training import runs
from vladva_training.config import Recipe
from vladva_training.processes.distributed import Processes
from vladva_training.processes.errors import RunError
from vladva_training.processes.signals import StopSignals
from vladva_training.run.product import write_product
from vladva_training.step.fused import FusedForward
from vladva_training.step.trainable import load_trainable
from vladva_training.train import prepare, train


@pytest.fixture(scope="module")
def pairs(base_with_pairs) -> str:
    return f"jsonl:{base_with_pairs.parent / 'pairs.jsonl'}"


@pytest.fixture(scope="module")
def trained(base_with_pairs, pairs, tmp_path_factory) -> Recipe:
    """The recipe of a finished run that was evaluated and kept its best checkpoint."""
    recipe = runs.small_recipe(
        base_with_pairs,
        tmp_path_factory.mktemp("trained") / "run",
        data={"evaluation": pairs},
        run={"best_metric": "text_to_image_R@1", "evaluate_every": 2, "log_every": 5},
        optim={"ema_decay": 0.9},
    )
    assert train(recipe) == 0
    return recipe


def steps_kept(recipe: Recipe) -> list[int]:
    return sorted(int(path.name[5:]) for path in Path(recipe.output_dir, "checkpoints").glob("step-*"))


def largest_difference(first: Recipe, second: Recipe) -> float:
    names = ("adapter_model.safetensors", "soft_prompt.safetensors")
    pairs = [[load_file(Path(recipe.output_dir, "adapter", name)) for recipe in (first, second)] for name in names]
    return max(float((one[key] - other[key]).abs().max()) for one, other in pairs for key in one)


def test_adapter_loads(trained, base_with_pairs):
    adapter = Path(trained.output_dir) / "adapter"
    model, _ = vladva_clip.create_model(f"local-dir:{adapter}", precision="fp32")
    untrained, _ = vladva_clip.create_model(f"local-dir:{base_with_pairs}", precision="fp32")
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    similarity = model.encode_image(images, normalize=True) * untrained.encode_image(images, normalize=True)
    assert similarity.sum(dim=1).max() < 0.9999


@pytest.mark.parametrize(("masks", "they_are"), [("identical", "not negatives"), ("none", "negatives (loss.false")])
def test_a_run_says_how_many_rows_share_their_picture(base_with_pairs, pairs, tmp_path, capsys, masks, they_are):
    """Seven pictures with one row per caption, all in one batch."""
    rows = [json.loads(line) for line in (base_with_pairs.parent / "pairs.jsonl").read_text().splitlines()[:7]]
    rows = [row | {"captions": [text], "hard_negatives": ["a dog"]} for row in rows for text in row["captions"][:2]]
    rows[0]["hard_negatives"] = rows[1]["captions"]  # a caption of the same picture in another row
    source = base_with_pairs.parent / f"rows-{masks}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = runs.small_recipe(
        base_with_pairs,
        tmp_path / "run",
        data={"train": (f"jsonl:{source}",)},
        loss={"false_negatives": masks, "hard_negatives": 1},
        batch={"size": 14, "micro_size": None},
        run={"steps": 2, "checkpoint_every": 0},
    )
    assert train(recipe) == 0
    said, record = capsys.readouterr().err, json.loads(Path(recipe.output_dir, "training_record.json").read_text())
    assert said.count("note: in step 1, 14 of 14 rows share their picture") == 1 and they_are in said
    unused = ", 2 captions not used (hard negative equals a caption 2)" if masks != "none" else ""
    counted = f"28 records, 0 bad{unused}, 28 rows shared their picture with another row of their batch"
    assert record["data_since_last_start"] == counted and counted in said
    assert [line["same_picture"] for line in runs.metrics(recipe)] == [14, 14]


@pytest.fixture
def evaluated_between_checkpoints(base_with_pairs, pairs, tmp_path) -> Recipe:
    """Evaluations improve at steps where no checkpoint is due."""
    run = {"best_metric": "ntp_loss", "evaluate_every": 2, "checkpoint_every": 5}
    return runs.small_recipe(base_with_pairs, tmp_path / "run", data={"evaluation": pairs}, run=run)


@pytest.mark.wide
def test_two_processes_keep_a_best_checkpoint_that_was_not_due(evaluated_between_checkpoints):
    """Only the first process evaluates; the second must join it in saving."""
    recipe = evaluated_between_checkpoints
    group = runs.start_group(recipe, 2)
    for process in group:
        process.join(120)
    for process in group:
        process.kill()
    assert [process.exitcode for process in group] == [0, 0], runs.log(recipe)
    figures = {line["step"]: line["ntp_loss"] for line in runs.metrics(recipe, "evaluation")}
    best = json.loads(Path(recipe.output_dir, "checkpoints", "best.json").read_text())
    assert best["value"] == min(figures.values()) == figures[best["step"]] and set(figures) == set(range(0, 13, 2))


def test_the_sigmoid_losss_bias_is_in_the_adapter(base_with_pairs, tmp_path):
    """Averaged, in each checkpoint's adapter and in the final one; a resumed run continues from its own."""
    recipe = runs.small_recipe(
        base_with_pairs,
        tmp_path / "run",
        loss={"contrastive": "sigmoid"},
        optim={"ema_decay": 0.9},
        run={"steps": 4, "checkpoint_every": 2},
    )
    assert train(recipe) == 0
    states = [load_file(tmp_path / f"run/checkpoints/step-0000000{step}/trainer.safetensors") for step in (2, 4)]
    places = [tmp_path / "run/checkpoints/step-00000002/adapter", tmp_path / "run/adapter"]
    for state, place in zip(states, places, strict=True):
        model, _ = vladva_clip.create_model(f"local-dir:{place}", precision="fp32")
        assert model.logit_bias == state["ema/logit_bias"] != state["parameter/logit_bias"]
        assert abs(state["parameter/logit_bias"] + 10) > 1e-3
    resumed = prepare(replace(recipe, resume=True), Processes.start()).trainer.module
    assert resumed.logit_bias is resumed.model.logit_bias and resumed.logit_bias == states[1]["parameter/logit_bias"]
    on = FusedForward(
        load_trainable(replace(recipe.model, name=f"local-dir:{places[1]}"))[0], recipe.loss, recipe.batch
    )
    assert on.logit_bias == states[1]["ema/logit_bias"] and on.logit_bias.requires_grad


def test_a_base_that_did_not_stay_frozen_is_found_when_the_run_ends(base_with_pairs, tmp_path):
    run = prepare(
        runs.small_recipe(base_with_pairs, tmp_path / "run", run={"steps": 1, "evaluate_every": 0}), Processes.start()
    )
    run.trainer.module.model.visual.backbone.trunk_module.norm.weight.data[0] += 1e-5
    with pytest.raises(RunError, match="1 of the LVLM's tensors.*norm.weight"):
        run.go(StopSignals(0))
    assert not (tmp_path / "run/adapter").exists() and (tmp_path / "run/checkpoints/step-00000001").is_dir()


def test_full_fine_tuning_yields_an_lvlm_with_its_adapter(base_with_pairs, tmp_path):
    recipe = runs.small_recipe(
        base_with_pairs, tmp_path / "run", model={"train": "full"}, run={"steps": 3, "checkpoint_every": 2}
    )
    assert train(recipe) == 0
    trained = load_file(tmp_path / "run" / "checkpoints" / "step-00000003" / "trainer.safetensors")
    model, _ = vladva_clip.create_model(f"local-dir:{tmp_path / 'run' / 'adapter'}", precision="fp32")
    own = dict(model.named_parameters())
    found = {name: tensor for name, tensor in trained.items() if name.startswith("parameter/model.")}
    assert any("k_proj" in name for name in found) and any("lm_head" in name for name in found)
    assert all(torch.equal(own[name.removeprefix("parameter/model.")], tensor) for name, tensor in found.items())
    untrained, _ = vladva_clip.create_model(f"local-dir:{base_with_pairs}", precision="fp32")
    heads = [one.visual.backbone.lvlm.get_output_embeddings().weight for one in (model, untrained)]
    assert not torch.equal(*heads)


def test_record_says_what_was_trained_and_how(trained):
    record = json.loads(Path(trained.output_dir, "training_record.json").read_text())
    assert record["recipe"]["batch.size"] == 4 and record["world_size"] == 1
    assert record["state"]["step"] == runs.STEPS and record["state"]["pairs"] == 4 * runs.STEPS
    assert record["state"]["seconds"] > 0 and "torch" in record["versions"]


def test_the_adapter_has_a_card_about_its_training(trained, base_with_pairs):
    text = Path(trained.output_dir, "adapter", "README.md").read_text()
    assert f"{runs.STEPS} steps, {4 * runs.STEPS} pairs" in text and "| batch.size | 4 |" in text
    assert "`jsonl:pairs.jsonl`" in text and str(base_with_pairs.parent) not in text
    assert ModelCard(text).data.library_name == "vladva_clip"


def test_a_later_run_keeps_what_others_put_beside_the_adapter(tmp_path):
    model, _ = vladva_clip.create_model("vladva-tiny")
    for _ in range(2):
        write_product(model, tmp_path, False)
        files = runs.files(tmp_path / "adapter")
        (tmp_path / "adapter/results").mkdir(exist_ok=True)
        for name in ("notes.txt", "results/a.json", "README.md", "model.safetensors"):
            (tmp_path / "adapter" / name).write_text("mine")
    assert files["notes.txt"] == files["README.md"] == files["model.safetensors"] == b"mine"
    assert (tmp_path / "adapter/results/a.json").read_text() == "mine"


def test_metrics_hold_every_fifth_step_and_the_last(trained):
    lines = runs.metrics(trained)
    assert [line["step"] for line in lines] == [5, 10, 12]
    expected = {"loss", "contrastive", "ntp", "logit_scale", "learning_rate", "grad_norm", "samples_per_s"}
    assert expected | {"tokens_per_s", "memory_gb", "skipped"} <= set(lines[0])
    assert [line["step"] for line in runs.metrics(trained, "evaluation")] == [0, 2, 4, 6, 8, 10, 12]
    assert list(Path(trained.output_dir, "tensorboard").iterdir())


def test_last_checkpoints_and_the_best_are_kept(trained):
    figures = {line["step"]: line["text_to_image_R@1"] for line in runs.metrics(trained, "evaluation")}
    best = json.loads(Path(trained.output_dir, "checkpoints", "best.json").read_text())
    assert best["value"] == max(figures.values()) == figures[best["step"]]
    assert best["checkpoint"] == f"step-{best['step']:08d}"
    assert set(steps_kept(trained)) == {9, 12, best["step"]} or set(steps_kept(trained)) == {10, 12, best["step"]}


def test_checkpoint_holds_the_adapter_that_was_evaluated(trained):
    last = Path(trained.output_dir, "checkpoints", f"step-{runs.STEPS:08d}")
    checkpointed, final = runs.files(last / "adapter"), runs.adapter(trained)
    assert checkpointed.pop("README.md") != final.pop("README.md")  # the final one describes the training
    assert checkpointed == final
    tensors = load_file(last / "trainer.safetensors")
    averaged = load_file(last / "adapter" / "soft_prompt.safetensors")["image"]
    assert torch.equal(tensors["ema/model.visual.soft_prompt.weight"], averaged)
    assert not torch.equal(tensors["parameter/model.visual.soft_prompt.weight"], averaged)


def test_resume_refuses_other_settings_and_names_them_all(trained, base_with_pairs):
    other = runs.small_recipe(base_with_pairs, Path(trained.output_dir), resume=True, seed=5, batch={"size": 8})
    with pytest.raises(ValueError, match="started with other settings") as error:
        train(other)
    for part in ("seed: 0 in the checkpoint, 5 now", "batch.size: 4 in the checkpoint, 8 now", "optim.ema_decay"):
        assert part in str(error.value)


def test_resume_refuses_another_base_at_the_same_place(trained):
    place = Path(trained.output_dir, "checkpoints", f"step-{runs.STEPS:08d}", "trainer.json")
    content = place.read_text()
    record = json.loads(content)
    fingerprint = record["setting"]["fingerprint of the base"]
    place.write_text(json.dumps({**record, "setting": {**record["setting"], "fingerprint of the base": "another"}}))
    try:
        with pytest.raises(ValueError, match=f"'another' in the checkpoint, '{fingerprint}' now"):
            train(replace(trained, resume=True))
    finally:
        place.write_text(content)


def test_a_used_directory_is_not_started_anew(trained, base_with_pairs):
    with pytest.raises(ValueError, match="holds checkpoints of a run, the newest of step 12; .*resume=true"):
        train(runs.small_recipe(base_with_pairs, Path(trained.output_dir)))


@pytest.mark.wide
def test_resume_with_average_best_and_evaluation_is_exact(trained, base_with_pairs, pairs, tmp_path):
    """Stopped after a step whose evaluation was due; the resumed run evaluates it."""
    changes = {"data": {"evaluation": pairs}, "optim": {"ema_decay": 0.9}}
    run = {"best_metric": "text_to_image_R@1", "evaluate_every": 2, "log_every": 5}
    recipe = runs.small_recipe(base_with_pairs, tmp_path / "run", resume=True, **changes, run=run)
    process = runs.start(recipe)
    runs.wait_for((Path(recipe.output_dir) / "checkpoints" / "step-00000003").exists, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143
    assert train(recipe) == 0
    assert runs.adapter(recipe) == runs.adapter(trained)
    assert runs.metrics(recipe, "evaluation") == runs.metrics(trained, "evaluation")
    read = [json.loads(Path(r.output_dir, "checkpoints", "best.json").read_text()) for r in (recipe, trained)]
    assert read[0] == read[1]


@pytest.mark.wide
def test_resume_by_two_processes_equals_one_up_to_rounding(base_with_pairs, tmp_path):
    no_dropout = {"model": {"lora_dropout": 0.0}}  # each process draws its own masks
    alone = runs.small_recipe(base_with_pairs, tmp_path / "alone", **no_dropout)
    recipe = runs.small_recipe(base_with_pairs, tmp_path / "run", resume=True, **no_dropout)
    assert train(alone) == 0
    process = runs.start(recipe)
    runs.wait_for((Path(recipe.output_dir) / "checkpoints" / "step-00000003").exists, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    group = runs.start_group(recipe, 2)
    for process in group:
        process.join(120)
    assert [process.exitcode for process in group] == [0, 0], runs.log(recipe)
    assert "world_size: 1 in the checkpoint, 2 now; the result is the same only up to rounding" in runs.log(recipe)
    assert largest_difference(alone, recipe) < 1e-5


@pytest.mark.slow
def test_torchrun_with_two_processes_equals_one(tmp_path):
    """The debug recipe from the command line. In bfloat16 rounding would dominate the first steps."""
    options = ["run.steps=4", "data.evaluation=none", "batch.autocast=fp32"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, launcher in (("alone", []), ("pair", torchrun)):
        command = [sys.executable, *launcher, "-m", "vladva_training.cli", "debug", f"output_dir={tmp_path / name}"]
        subprocess.run([*command, *options], check=True, capture_output=True)
    for name in ("adapter_model.safetensors", "soft_prompt.safetensors"):
        alone, pair = (load_file(tmp_path / run / "adapter" / name) for run in ("alone", "pair"))
        flat = [torch.cat([tensors[key].flatten() for key in sorted(alone)]) for tensors in (alone, pair)]
        assert (flat[0] - flat[1]).norm() < 1e-5 * flat[0].norm()


def test_sigterm_to_one_of_two_processes_stops_both_after_the_same_step(base_with_pairs, tmp_path):
    recipe = runs.small_recipe(
        base_with_pairs, tmp_path / "run", run={"steps": 400, "checkpoint_every": 0, "evaluate_every": 0}
    )
    group = runs.start_group(recipe, 2)
    metrics = Path(recipe.output_dir) / "metrics.jsonl"
    runs.wait_for(lambda: metrics.exists() and '"step": 2,' in metrics.read_text(), group[0])
    os.kill(group[1].pid, signal.SIGTERM)
    for process in group:
        process.join(120)
    assert [process.exitcode for process in group] == [143, 143], runs.log(recipe)
    assert steps_kept(recipe) == [runs.metrics(recipe)[-1]["step"]]
