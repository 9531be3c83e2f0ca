"""LLaVA-OneVision in training: a small run, and plans for the published sizes."""

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
from vladva_training.plan.dry_run import describe
from vladva_training.recipes import RECIPES
from vladva_training.train import train


@pytest.mark.parametrize("ntp_weight", [1.0, pytest.param(0.0, marks=pytest.mark.wide)])
def test_a_run_of_three_steps(bases, tmp_path, ntp_weight):
    """LoRA through the real trainer, with and without next-token prediction; the adapter loads and differs."""
    base = Path(shutil.copytree(bases["llava_onevision"], tmp_path / "base"))
    (base / BASE_FILE).write_text(json.dumps(describe_base(from_name(str(base))).to_dict()))
    runs.write_pairs(tmp_path / "pairs.jsonl")
    small = runs.small_recipe(base, tmp_path / "run", run={"steps": 3}, loss={"ntp_weight": ntp_weight})
    assert train(small) == 0
    lines = runs.metrics(small)
    assert len(lines) == 3 and all(0 < line["loss"] < 1e4 for line in lines)
    trained, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/run/adapter", precision="fp32")
    assert trained.config.base.family == "llava_onevision" and trained.visual.image_size == (56, 56)
    plain, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    images = images_of(plain, 2)
    similarity = (trained.encode_image(images, normalize=True) * plain.encode_image(images, normalize=True)).sum(1)
    assert similarity.max() < 0.9999
    trained.save_pretrained(tmp_path / "again")
    again, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/again", precision="fp32")
    assert torch.equal(again.encode_image(images), trained.encode_image(images))


SIZES = [("llava-onevision-0.5b", 24, 896, 128, 4864), ("llava-onevision-7b", 28, 3584, 512, 18944)]


@pytest.mark.wide
@pytest.mark.parametrize(("name", "layers", "width", "keys", "feed_forward"), SIZES)
def test_a_dry_run_of_the_published_sizes(name, layers, width, keys, feed_forward):
    """LoRA counted by hand: rank 16 on q, k, v, o, gate, up and down; `keys` is the width of all keys together."""
    lora = layers * 16 * (2 * 2 * width + 2 * (width + keys) + 3 * (width + feed_forward))
    plain = apply(RECIPES["qwen2vl_2b"](), [f"model.name={name}", "model.precision=bf16"])
    found = find_base(plain.model)
    assert sum(parameter.numel() for parameter in found.trained.values()) == lora
    report = describe(plain, "cpu")
    assert name in report and "(730 visual, " in report
