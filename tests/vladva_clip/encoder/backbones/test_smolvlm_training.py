"""SmolVLM in training: gradients of micro-batches, a small run, and plans for the published sizes."""

import shutil
from pathlib import Path

import pytest
import torch

import vladva_clip
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
from vladva_training.overrides import apply
from vladva_training.plan.architecture import find_base
from vladva_training.plan.dry_run import describe
from vladva_training.recipes import RECIPES
from vladva_training.train import train


def test_gradients_of_micro_batches_are_those_of_the_whole_batch(bases):
    model = double_model(bases["idefics3"])
    batch, whole = batch_of(model), recipe(bases["idefics3"], LOSSES["info_nce"])
    expected, losses = one_step(fused_forward(model, whole), whole, batch)
    assert all(gradient.abs().max() > 0 for gradient in expected.values())
    for micro_size in (1, 4):
        cut = recipe(bases["idefics3"], LOSSES["info_nce"], micro_size)
        found, found_losses = one_step(fused_forward(model, cut), cut, batch)
        assert_equal(found, expected)
        assert found_losses == pytest.approx(losses, rel=1e-9)


@pytest.mark.parametrize("family", ["idefics3", pytest.param("smolvlm", marks=pytest.mark.wide)])
def test_a_run_of_three_steps(bases, tmp_path, family):
    """LoRA with both losses through the real trainer; the adapter loads, differs, and is saved again as it is."""
    base = Path(shutil.copytree(bases[family], tmp_path / "base"))
    runs.write_pairs(tmp_path / "pairs.jsonl")
    small = runs.small_recipe(base, tmp_path / "run", run={"steps": 3})
    assert small.loss.ntp_weight > 0 and train(small) == 0
    losses = [line["loss"] for line in runs.metrics(small)]
    assert len(losses) == 3 and all(0 < loss < 1e4 for loss in losses)
    trained, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/run/adapter", precision="fp32")
    assert trained.config.base.family == family and trained.config.image.interpolation == "lanczos"
    plain, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    images = images_of(plain, 2)
    similarity = (trained.encode_image(images, normalize=True) * plain.encode_image(images, normalize=True)).sum(1)
    assert similarity.max() < 0.9999
    trained.save_pretrained(tmp_path / "again")
    again, _ = vladva_clip.create_model(f"local-dir:{tmp_path}/again", precision="fp32")
    assert torch.equal(again.encode_image(images), trained.encode_image(images))


SIZES = [  # heads: their width together, and that of the keys'
    ("smolvlm-256m", 30, 576, 192, 1536),
    ("smolvlm-500m", 32, 960, 320, 2560),
    ("smolvlm-2.2b", 24, 2048, 2048, 8192),
]


@pytest.mark.wide
@pytest.mark.parametrize(("name", "layers", "width", "keys", "feed_forward"), SIZES)
def test_a_dry_run_of_the_published_sizes(name, layers, width, keys, feed_forward):
    """LoRA counted by hand: rank 16 on q, k, v, o, gate, up and down."""
    lora = layers * 16 * (2 * (width + width) + 2 * (width + keys) + 3 * (width + feed_forward))
    plain = apply(RECIPES["smolvlm_256m_laptop"](), [f"model.name={name}"])
    assert sum(one.numel() for one in find_base(plain.model).trained.values()) == lora
    assert name in describe(plain, "cpu")
