"""LLaVA-NeXT in training: a small run with tiles, and plans for the published size."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import vladva_clip
from tests.support.training import runs
from tests.support.training.steps import images_of
from vladva_clip.encoder.describe import describe_base
from vladva_clip.sources.locate import BASE_FILE, from_name
from vladva_training.overrides import apply
from vladva_training.plan.architecture import find_base
from vladva_training.plan.compute import step_flops
from vladva_training.plan.dry_run import describe
from vladva_training.plan.memory import Lengths, Share
from vladva_training.recipes import RECIPES
from vladva_training.train import train


@pytest.mark.wide
@pytest.mark.parametrize("side", [28, 56])
def test_a_run_of_three_steps(bases, tmp_path, side):
    """LoRA and both losses through the real trainer with GradCache; the adapter loads, and differs from the base."""
    base = Path(shutil.copytree(bases["llava_next"], tmp_path / "base"))
    (base / BASE_FILE).write_text(json.dumps(describe_base(from_name(str(base)), side).to_dict()))
    runs.write_pairs(tmp_path / "pairs.jsonl")
    small = runs.small_recipe(base, tmp_path / "run", run={"steps": 3})
    assert train(small) == 0
    lines = runs.metrics(small)
    assert len(lines) == 3 and all(0 < line["loss"] < 1e4 and line["ntp"] > 0 for line in lines)
    trained, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/run/adapter", precision="fp32")
    assert trained.config.base.family == "llava_next" and trained.visual.image_size == (side, side)
    plain, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    images = images_of(plain, 2)
    similarity = (trained.encode_image(images, normalize=True) * plain.encode_image(images, normalize=True)).sum(1)
    assert similarity.max() < 0.9999
    trained.save_pretrained(tmp_path / "again")
    again, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/again", precision="fp32")
    assert torch.equal(again.encode_image(images), trained.encode_image(images))


@pytest.mark.wide
def test_a_dry_run_of_the_published_size():
    """LoRA counted by hand: rank 16 on q, k, v, o, gate, up and down; four tiles cost four times the whole image."""
    tiled = apply(RECIPES["llava15_7b"](), ["model.name=llava-next-8b"])
    whole = apply(tiled, ["model.image_size=336"])
    found = find_base(tiled.model)
    lora = 32 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert sum(parameter.numel() for parameter in found.trained.values()) == lora
    assert "2928 visual" in describe(tiled, "cpu") and "576 visual" in describe(whole, "cpu")
    same_rows = Share.of(tiled), Lengths(700, 60, 30)
    tower = [step_flops(tiled, found.backbone, *same_rows, size) for size in (672, 336)]
    crop = 24 * (2 * 576 * (4 * 1024**2 + 2 * 1024 * 4096) + 4 * 576**2 * 1024)
    read = 23 / 24  # the last of the tower's layers is not
    assert tower[0] - tower[1] == pytest.approx(4 * tiled.batch.size * crop * read, rel=1e-6)


@pytest.mark.wide
def test_half_precision_is_no_start_for_training():
    """E5-V's authors compute in float16; another precision is asked for."""
    recipe = apply(RECIPES["llava15_7b"](), ["model.name=e5-v"])
    with pytest.raises(ValueError, match="model.precision=bf16"):
        describe(recipe, "cpu")
    assert "e5-v" in describe(apply(recipe, ["model.precision=bf16", "model.image_size=336"]), "cpu")
