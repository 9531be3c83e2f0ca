"""Adapters over EmbeddingGemma 2: what is saved loads to the same features, and an export is refused."""

import pytest
import torch

import vladva_clip
from tests.support import adapters
from tests.support.published.ours import Ours

NAME = "embeddinggemma-2"


@pytest.fixture
def ours(gemma):
    return Ours(NAME, image_size=384, cache_dir=gemma.cache_dir)


@pytest.mark.parametrize("merge_lora", [True, pytest.param(False, marks=pytest.mark.wide)])
def test_a_lora(gemma, ours, tmp_path, merge_lora):
    plain = ours.text(["a dog"])
    adapters.with_lora(ours.model).save_pretrained(tmp_path / "adapter")
    again = Ours(f"local-dir:{tmp_path / 'adapter'}", merge_lora=merge_lora, cache_dir=gemma.cache_dir)
    assert again.model.config.base.profile == NAME
    torch.testing.assert_close(again.text(["a dog"]), ours.text(["a dog"]), atol=1e-5, rtol=0)
    assert (again.text(["a dog"]) - plain).abs().max() > 1e-3
    again.model.save_pretrained(tmp_path / "again")
    third = Ours(f"local-dir:{tmp_path / 'again'}", cache_dir=gemma.cache_dir)
    torch.testing.assert_close(third.text(["a dog"]), ours.text(["a dog"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["layer_scalar", pytest.param("mlp.up_proj.weight", marks=pytest.mark.wide)])
def test_a_changed_base_is_noticed(ours, tmp_path, name):
    """Scalars of layers are buffers, which the files hold; an adapter would lose them."""
    layer = ours.model.visual.backbone.trunk_module.layers[1]
    with torch.no_grad():
        dict(layer.named_parameters() if "weight" in name else layer.named_buffers())[name].mul_(1.5)
    with pytest.raises(ValueError, match=f"layers.1.{name}"):
        ours.model.save_pretrained(tmp_path / "adapter")


def test_an_export_is_refused_with_its_reason(gemma, tmp_path):
    with pytest.raises(ValueError, match="pooling='mean'.*would give other vectors"):
        vladva_clip.export_model(NAME, tmp_path / "out", cache_dir=gemma.cache_dir)
    assert not (tmp_path / "out").exists()
