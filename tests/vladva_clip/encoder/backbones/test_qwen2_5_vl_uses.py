"""Qwen2.5-VL trained through the trainer, planned at its published sizes, and exported."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import vladva_clip
from tests.support import exports
from tests.support.training import runs
from vladva_training.overrides import apply
from vladva_training.plan.architecture import find_base, other_trainable
from vladva_training.plan.dry_run import describe
from vladva_training.plan.memory import lasting_memory
from vladva_training.recipes import RECIPES
from vladva_training.train import train

SIZE = 84  # pixels: 3 x 3 visual tokens in windows of 2 x 2


@pytest.fixture(scope="module")
def small(bases, tmp_path_factory) -> Path:
    """The base at a small size of image, with pairs beside it."""
    place = tmp_path_factory.mktemp("small")
    runs.write_pairs(place / "pairs.jsonl")
    base = shutil.copytree(bases["qwen2_5_vl"], place / "base")
    model, _ = vladva_clip.create_model(f"local-dir:{base}", force_image_size=SIZE)
    (base / "vladva_base.json").write_text(json.dumps(model.config.to_dict()))
    return base


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory) -> Path:
    """The adapter of three steps of LoRA training."""
    run = {"steps": 3, "checkpoint_every": 0, "evaluate_every": 0, "log_every": 1}
    recipe = runs.small_recipe(small, tmp_path_factory.mktemp("trained") / "run", data={"evaluation": None}, run=run)
    assert train(recipe) == 0
    assert [line["step"] for line in runs.metrics(recipe)] == [1, 2, 3]
    return Path(recipe.output_dir) / "adapter"


def features(model, source: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, SIZE, SIZE, generator=generator)
    tokens = vladva_clip.get_tokenizer(source)(["a red circle", "a square on the left"])
    with torch.no_grad():
        return model.encode_image(images, True), model.encode_text(tokens, True)


def test_three_steps_of_training_change_the_features_and_are_saved(small, trained, tmp_path):
    before, _ = vladva_clip.create_model(f"local-dir:{small}", precision="fp32")
    after, _ = vladva_clip.create_model(f"local-dir:{trained}", precision="fp32", merge_lora=False)
    assert after.visual.image_size == (SIZE, SIZE) and after.config.base.family == "qwen2_5_vl"
    for old, new in zip(features(before, f"local-dir:{small}"), features(after, f"local-dir:{trained}"), strict=True):
        assert (old - new).abs().max() > 1e-3
    after.save_pretrained(tmp_path / "again")
    again, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/again", precision="fp32", merge_lora=False)
    pairs = zip(features(after, f"local-dir:{trained}"), features(again, f"local-dir:{tmp_path}/again"), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_stock_transformers_reads_the_export(trained, tmp_path):
    exported = exports.export(f"local-dir:{trained}", tmp_path / "out")
    plain = exports.PlainTransformers(exported.directory)
    assert plain.lvlm.config.model_type == "qwen2_5_vl"
    for found, ours in zip(
        (plain.features(exported.images), plain.features(exports.CAPTIONS)), exported.features(), strict=True
    ):
        torch.testing.assert_close(found, ours, atol=1e-4, rtol=0)
    image = exported.images[0]
    exported.model.visual.backbone.lvlm.generation_config.suppress_tokens = (
        plain.lvlm.generation_config.suppress_tokens  # random weights choose unused rows
    )
    ours = exported.model.generate(exported.preprocess(image)[None], "Describe it.", max_new_tokens=6)
    assert [plain.generate(image, "Describe it.", 6)] == ours


# LoRA of rank 16 on the seven projections of each layer: 16 (in + out); widths as published
LORA = {
    "qwen2.5-vl-3b": 36 * 16 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11008)),
    "qwen2.5-vl-7b": 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944)),
}
LINEAR = {  # the LLM's linear layers, which QLoRA holds in 4 bits
    "qwen2.5-vl-3b": 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008),
    "qwen2.5-vl-7b": 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944),
}
PARAMETERS = {"qwen2.5-vl-3b": 3_754_622_976, "qwen2.5-vl-7b": 8_292_166_656}


@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("qwen2.5-vl-3b", "lora"),
        ("qwen2.5-vl-7b", "qlora"),
        pytest.param("qwen2.5-vl-3b", "qlora", marks=pytest.mark.wide),
        pytest.param("qwen2.5-vl-7b", "lora", marks=pytest.mark.wide),
    ],
)
def test_a_dry_run_knows_the_published_sizes(name, train):
    recipe = apply(RECIPES["qwen2vl_2b"](), [f"model.name={name}", f"model.train={train}"])
    base = find_base(recipe.model)
    assert sum(parameter.numel() for parameter in base.trained.values()) == LORA[name]
    lines = describe(recipe, "cpu").splitlines()
    assert any(line.startswith("What trains: ") for line in lines)
    assert any("256 visual" in line for line in lines)
    weights = lasting_memory(recipe, base.backbone, sum(other_trainable(recipe, base).values())).weights
    four_bits = LINEAR[name] * (0.5 + 1 / 64 + 4 / (64 * 256)) if train == "qlora" else 2 * LINEAR[name]
    assert weights == pytest.approx(four_bits + 2 * (PARAMETERS[name] - LINEAR[name]) + 4 * LORA[name], rel=0.001)
