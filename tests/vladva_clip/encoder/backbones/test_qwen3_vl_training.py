"""Qwen3-VL in training: the maps on their way through a step, a small run, and plans for the published sizes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vladva_clip
from tests.support.models.tiny_qwen3_vl import write_qwen3_vl
from tests.support.training import runs
from tests.support.training.steps import (
    LOSSES,
    assert_equal,
    batch_of,
    double_model,
    fused_forward,
    images_of,
    one_step,
    recipe,
)
from vladva_clip.encoder.describe import describe_base
from vladva_clip.sources.locate import BASE_FILE, from_name
from vladva_training.overrides import apply
from vladva_training.plan.architecture import find_base
from vladva_training.plan.dry_run import describe
from vladva_training.plan.memory import Lengths, Share, predict_memory
from vladva_training.recipes import RECIPES
from vladva_training.train import train


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A base with two maps, in a directory that is named as the others."""
    return write_qwen3_vl(tmp_path_factory.mktemp("deep") / "qwen3_vl", depth=3)


@pytest.mark.parametrize("visual_cache", ["device", "cpu"])
def test_gradients_of_micro_batches_are_those_of_the_whole_batch(base, visual_cache, monkeypatch):
    model = double_model(base)
    batch, whole = batch_of(model), recipe(base, LOSSES["info_nce"])
    expected, losses = one_step(fused_forward(model, whole), whole, batch)
    for micro_size in (1, 4):
        cut = recipe(base, LOSSES["info_nce"], micro_size, visual_cache=visual_cache)
        found, found_losses = one_step(fused_forward(model, cut), cut, batch)
        assert_equal(found, expected)
        assert found_losses == pytest.approx(losses, rel=1e-9)
    backbone = model.visual.backbone
    inputs = backbone.trunk_inputs
    monkeypatch.setattr(backbone, "trunk_inputs", lambda seen, mask: inputs(replace(seen, maps=()), mask))
    without, _ = one_step(fused_forward(model, whole), whole, batch)
    largest = {name: (without[name] - expected[name]).abs().max() / expected[name].abs().max() for name in expected}
    assert largest["model.visual.soft_prompt.weight"] > 0.01  # the maps matter to what trains


def test_the_maps_move_with_the_tokens(base):
    model = double_model(base)
    seen = model.visual.backbone.visual_tokens(images_of(model, 2).double())
    moved = seen.to("meta")
    assert all(one.device.type == "meta" for one in (moved.tokens, *moved.maps)) and len(moved.maps) == 2
    assert all(torch.equal(*pair) for pair in zip(seen.maps, seen.to("cpu").maps, strict=True))


def test_a_run_of_three_steps(base, tmp_path):
    """LoRA through the real trainer with GradCache, its visual tokens on the CPU; the adapter loads and differs."""
    base = Path(shutil.copytree(base, tmp_path / "base"))
    (base / BASE_FILE).write_text(json.dumps(describe_base(from_name(str(base)), 64).to_dict()))
    runs.write_pairs(tmp_path / "pairs.jsonl")
    small = runs.small_recipe(base, tmp_path / "run", batch={"visual_cache": "cpu"}, run={"steps": 3})
    assert train(small) == 0
    losses = [line["loss"] for line in runs.metrics(small)]
    assert len(losses) == 3 and all(0 < loss < 1e4 for loss in losses)
    trained, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/run/adapter", precision="fp32")
    assert trained.config.base.family == "qwen3_vl" and trained.visual.image_size == (64, 64)
    plain, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    images = images_of(plain, 2)
    similarity = (trained.encode_image(images, normalize=True) * plain.encode_image(images, normalize=True)).sum(1)
    assert similarity.max() < 0.9999
    trained.save_pretrained(tmp_path / "again")
    again, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/again", precision="fp32")
    assert torch.equal(again.encode_image(images), trained.encode_image(images))


def test_the_planned_memory_counts_the_maps(base):
    whole = recipe(base, LOSSES["plain"], 2, autocast="fp32")
    found = find_base(whole.model)
    planned = predict_memory(whole, found.backbone, Share.of(whole), Lengths(20, 10, 9), found.num_visual_tokens, 0)
    assert planned.visual_tokens == whole.batch.size * 4 * 3 * 256 * 32


SIZES = [  # heads: their width together
    ("qwen3-vl-2b", 28, 2048, 2048, 6144),
    ("qwen3-vl-4b", 36, 2560, 4096, 9728),
    ("qwen3-vl-8b", 36, 4096, 4096, 12288),
]


@pytest.mark.wide
@pytest.mark.parametrize(("name", "layers", "width", "heads", "feed_forward"), SIZES)
def test_a_dry_run_of_the_published_sizes(name, layers, width, heads, feed_forward):
    """LoRA counted by hand: rank 16 on q, k (8 heads of 128), v, o, gate, up and down."""
    lora = layers * 16 * (2 * (width + heads) + 2 * (width + 1024) + 3 * (width + feed_forward))
    words = [f"model.name={name}", "model.precision=bf16"]
    plain = apply(RECIPES["qwen2vl_2b"](), words)
    found = find_base(plain.model)
    assert sum(parameter.numel() for parameter in found.trained.values()) == lora
    assert name in describe(plain, "cpu")
    quantized = apply(plain, ["model.train=qlora"])
    assert "qlora" in describe(quantized, "cpu")
    weights = [
        predict_memory(one, found.backbone, Share.of(one), Lengths(300, 60, 30), 256, 0).weights
        for one in (plain, quantized)
    ]
    linear = layers * (2 * width * heads + 2 * width * 1024 + 3 * width * feed_forward)
    assert weights[0] - weights[1] == pytest.approx((2 - 0.516) * linear, rel=0.01)
