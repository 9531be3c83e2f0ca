"""E5-V's repository loaded, trained over and exported; what its profile states."""

import json

import pytest
import torch

import vladva_clip
from tests.support import exports
from tests.support.published import e5v, samples
from tests.support.published.ours import Ours, profile
from tests.support.training import runs
from vladva_training import cli

CAPTIONS = list(samples.CAPTIONS.values())
SETTINGS = (
    f"debug model.name={e5v.NAME} model.pretrained=none model.precision=fp32 model.lora_rank=2 model.soft_prompt=false "
    "model.image_size=336 batch.size=4 batch.micro_size=2 batch.autocast=fp32 run.steps=3 run.checkpoint_every=0 "
    "run.evaluate_every=0 optim.learning_rate=1e-2 data.num_workers=0 data.short_max_tokens=16 data.evaluation=none"
).split()


def test_the_profile_states_every_decision_and_its_source():
    data = profile(e5v.NAME)
    assert (data["repository"], data["revision"]) == (e5v.REPOSITORY, e5v.REVISION)
    templates = {name: data["config"]["prompt"][f"{name}_template"] for name in ("image", "text")}
    assert templates["image"] == e5v.IMAGE.replace("<image>", "{visual}")
    assert templates["text"] == e5v.TEXT.replace("<sent>", "{caption}")
    stated = {"image_template", "text_template", "positions", "pooling", "attention", "dtype", "context_length"}
    stated |= {"image.size", "clean", "license", "revision", "num_parameters", "download_gb"}
    assert stated <= set(data["sources"]) and data["unverified"] and all(one["source"] for one in data["scores"])
    assert data["download_gb"] == round(data["num_parameters"] * 2 / 1e9, 1)
    assert vladva_clip.get_model_config(e5v.NAME)["vision_cfg"]["image_size"] == 672


def test_without_the_profile_it_is_refused(directory):
    with pytest.raises(ValueError, match="seems to hold a published embedder.*profile='e5-v'"):
        vladva_clip.create_model(f"local-dir:{directory}")


@pytest.mark.wide
def test_it_computes_in_half_precision_unless_told_otherwise(cache_dir, ours):
    """As its authors; on a CPU as well."""
    model, preprocess = vladva_clip.create_model(e5v.NAME, cache_dir=cache_dir, image_size=336)
    assert model.visual.backbone.dtype == torch.float16
    with torch.no_grad():
        found = model.encode_text(ours.tokenizer(CAPTIONS), normalize=True)
        assert model.encode_image(preprocess(samples.picture(672))[None]).isfinite().all()
    assert torch.cosine_similarity(found, ours.text(CAPTIONS)).min() > 0.9999


@pytest.mark.wide
def test_it_generates(cache_dir):
    ours = Ours(e5v.NAME, image_size=336, cache_dir=cache_dir)
    (text,) = ours.model.generate(ours.preprocess(samples.picture(672))[None], max_new_tokens=3)
    assert isinstance(text, str)


@pytest.mark.wide
def test_a_run_of_three_steps(cache_dir, directory, tmp_path, monkeypatch):
    """Contrastive and next-token losses; PEFT puts the saved LoRA into the authors' own model."""
    peft = pytest.importorskip("peft")
    runs.write_pairs(tmp_path / "pairs.jsonl")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache_dir))
    words = [*SETTINGS, f"data.train=jsonl:{tmp_path / 'pairs.jsonl'}", f"output_dir={tmp_path / 'run'}"]
    assert cli.main(words) == 0
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("ntp" in step for step in steps if step["event"] == "train") == 3
    adapter = tmp_path / "run" / "adapter"
    stated = json.loads((adapter / "vladva_config.json").read_text())
    assert stated["base"]["profile"] == e5v.NAME and stated["image"]["size"] == 336
    ours, way = Ours(f"local-dir:{adapter}", cache_dir=cache_dir), e5v.Authors(directory)
    before = way.features(way.text_inputs(CAPTIONS))
    way.lvlm = peft.PeftModel.from_pretrained(way.lvlm, adapter).merge_and_unload()
    after = way.features(way.text_inputs(CAPTIONS))
    torch.testing.assert_close(ours.text(CAPTIONS), after, atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.wide
def test_gradients_are_the_authors(cache_dir, directory):
    """Of a projection of captions' features with respect to the first layer's queries."""
    way, captions = e5v.Authors(directory), ["a dog.", "two  cats "]
    ours = Ours(e5v.NAME, image_size=336, cache_dir=cache_dir)
    found, expected = (
        lvlm.model.language_model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
        for lvlm in (ours.model.visual.backbone.lvlm, way.lvlm)
    )
    direction = torch.randn(e5v.WIDTH, generator=torch.Generator().manual_seed(0))
    for features in (
        ours.model.encode_text(ours.tokenizer(captions), normalize=True),
        way.features(way.text_inputs(captions)),
    ):
        (features @ direction).sum().backward()
    scale = expected.grad.abs().max()
    assert scale > 1e-4
    torch.testing.assert_close(found.grad / scale, expected.grad / scale, atol=1e-4, rtol=0)


@pytest.mark.wide
def test_an_export_has_the_features(cache_dir, ours, tmp_path):
    """In plain transformers, of captions and of a picture, and here; the repository's files leave out how to count."""
    place = vladva_clip.export_model(e5v.NAME, tmp_path / "out", precision="fp32", cache_dir=str(cache_dir))
    plain, pictures = exports.PlainTransformers(place), [samples.picture(672)]
    torch.testing.assert_close(plain.features(CAPTIONS), ours.text(CAPTIONS), atol=1e-5, rtol=0)
    assert exports.cosine(plain.features(pictures), ours.images(pictures)) > 1 - 1e-6
    again = Ours(f"local-dir:{place}")
    torch.testing.assert_close(again.text(CAPTIONS), ours.text(CAPTIONS), atol=1e-5, rtol=0)
    torch.testing.assert_close(again.images(pictures), ours.images(pictures), atol=1e-5, rtol=0)
