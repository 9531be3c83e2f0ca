"""The recipe starts from a profile by its name, keeps its rows, and what it trains loads over the same repository."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

import vladva_clip
from tests.support.published import samples
from tests.support.published.ours import Ours, profile
from tests.support.training import runs
from vladva_training import cli

NAME = "gme-qwen2-vl-2b"
SETTINGS = (
    f"debug model.name={NAME} model.pretrained=none model.precision=fp32 model.lora_rank=2 model.soft_prompt=false "
    "batch.size=4 batch.micro_size=2 batch.autocast=fp32 run.steps=3 run.checkpoint_every=0 run.evaluate_every=0 "
    "optim.learning_rate=1e-2 data.num_workers=0 data.evaluation=none"
).split()

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module")
def adapter(shelf, tmp_path_factory):
    """The adapter of a run of three steps over the cache."""
    shelf.directory(NAME)
    folder = tmp_path_factory.mktemp("trained")
    runs.write_pairs(folder / "pairs.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(shelf.cache_dir))
        words = [*SETTINGS, f"data.train=jsonl:{folder / 'pairs.jsonl'}", f"output_dir={folder / 'run'}"]
        assert cli.main(words) == 0
    return folder / "run" / "adapter"


def test_the_profile_is_kept(adapter, shelf):
    stated, data = json.loads((adapter / "vladva_config.json").read_text()), profile(NAME)
    assert stated["base"]["id"] == data["repository"] and stated["base"]["revision"] == data["revision"]
    assert stated["encoding"] == data["config"]["encoding"]
    assert stated["base"]["profile"] == NAME
    prompt = stated["prompt"]
    assert prompt.pop("num_image_soft_tokens") == 20 and prompt.pop("num_text_soft_tokens") == 20
    assert prompt.pop("tokens_template") is None and prompt == data["config"]["prompt"]
    assert stated["image"] == data["config"]["image"] and stated["context_length"] == 1780


def test_what_was_trained_is_the_authors_way_with_the_lora(adapter, shelf):
    """PEFT puts the saved LoRA into the authors' own model."""
    ours, way = Ours(f"local-dir:{adapter}", cache_dir=shelf.cache_dir), shelf.authors(NAME)
    captions, pictures = list(samples.CAPTIONS.values()), [samples.picture(448)]
    untrained = way.features(way.text_inputs(captions)), way.features(way.image_inputs(pictures))
    way.lvlm = PeftModel.from_pretrained(way.lvlm, adapter).merge_and_unload()
    trained = way.features(way.text_inputs(captions)), way.features(way.image_inputs(pictures))
    for found, before, after in zip((ours.text(captions), ours.images(pictures)), untrained, trained, strict=True):
        torch.testing.assert_close(found, after, atol=1e-5, rtol=0)
        assert (found - before).abs().max() > 1e-3


def test_saved_again_it_is_the_same(adapter, shelf, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(shelf.cache_dir))
    first = Ours(f"local-dir:{adapter}", cache_dir=shelf.cache_dir)
    first.model.save_pretrained(tmp_path / "again")
    again = Ours(f"local-dir:{tmp_path / 'again'}", cache_dir=shelf.cache_dir)
    captions = list(samples.CAPTIONS.values())
    assert torch.equal(first.text(captions), again.text(captions))


@pytest.mark.parametrize("side", ["text", "image"])
def test_gradients_are_the_authors(shelf, side):
    """Of a projection of the features with respect to the first layer's queries."""
    way = shelf.authors(NAME)
    model, preprocess = vladva_clip.create_model(NAME, precision="fp32", cache_dir=shelf.cache_dir)
    tokens = vladva_clip.get_tokenizer(NAME, cache_dir=shelf.cache_dir)(["a dog.", "two  cats "])
    picture = samples.picture(448)
    weights = [
        lvlm.model.language_model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
        for lvlm in (model.visual.backbone.lvlm, way.lvlm)
    ]
    if side == "text":
        found = model.encode_text(tokens, normalize=True)
        expected = way.features(way.text_inputs(["a dog.", "two  cats "]))
    else:
        found = model.encode_image(preprocess(picture)[None], normalize=True)
        expected = way.features(way.image_inputs([picture]))
    direction = torch.randn(found.shape[1], generator=torch.Generator().manual_seed(0))
    for features in (found, expected):
        (features @ direction).sum().backward()
    scale = weights[1].grad.abs().max()
    assert scale > 1e-4
    torch.testing.assert_close(weights[0].grad / scale, weights[1].grad / scale, atol=1e-4, rtol=0)


def test_the_base_directory_stays_as_published(adapter, shelf):
    """Training writes nothing into the cache."""
    names = {path.name for path in Path(shelf.directory(NAME)).iterdir()}
    assert not {name for name in names if name.startswith("vladva")}
