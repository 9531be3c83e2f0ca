"""The recipe starts from VLM2Vec-V2 by its name, and what it trains loads over the same adapter and base."""

import json

import pytest
import torch
from peft import PeftModel

import vladva_clip
from tests.support.published import samples
from tests.support.published.lora_repositories import BASE, NAME, REPO, REVISION
from tests.support.published.ours import Ours
from tests.support.training import runs
from vladva_training import cli

SETTINGS = (
    f"debug model.name={NAME} model.pretrained=none model.precision=fp32 model.lora_rank=2 "
    "batch.size=4 batch.micro_size=2 batch.autocast=fp32 run.steps=3 run.checkpoint_every=0 run.evaluate_every=0 "
    "optim.learning_rate=1e-2 data.num_workers=0 data.short_max_tokens=16 data.evaluation=none"
).split()
CAPTIONS = [caption for caption in samples.CAPTIONS.values() if caption]

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", params=["false", "true"])
def trained(request, loras, tmp_path_factory):
    """The folder of a run of three steps over the cache, with soft prompts and without."""
    folder = tmp_path_factory.mktemp("trained")
    runs.write_pairs(folder / "pairs.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(loras.cache_dir))
        words = [*SETTINGS, f"model.soft_prompt={request.param}", f"data.train=jsonl:{folder / 'pairs.jsonl'}"]
        assert cli.main([*words, f"output_dir={folder / 'run'}"]) == 0
    return folder / "run"


def test_all_losses_were_learned(trained):
    steps = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    steps = [step for step in steps if step["event"] == "train"]
    assert len(steps) == 3 and all(step["ntp"] > 0 and step["grad_norm"] > 0 for step in steps)


def test_profile_and_revision_are_kept(trained):
    base = json.loads((trained / "adapter" / "vladva_config.json").read_text())["base"]
    assert (base["id"], base["revision"], base["profile"]) == (REPO, REVISION, NAME)
    stated = json.loads((trained / "adapter" / "adapter_config.json").read_text())
    assert (stated["base_model_name_or_path"], stated["revision"]) == (REPO, REVISION)


def test_what_was_trained_is_the_authors_model_with_the_lora(trained, loras):
    """PEFT merges the published LoRA, then the trained one (which says nothing about soft prompts)."""
    ours, way = Ours(f"local-dir:{trained / 'adapter'}", cache_dir=loras.cache_dir), loras.authors()
    before = way.features(way.text_inputs(CAPTIONS))
    merged = PeftModel.from_pretrained(loras.bare(), loras.root / "peft" / "published").merge_and_unload()
    way.lvlm = PeftModel.from_pretrained(merged, trained / "adapter").merge_and_unload().eval()
    after = way.features(way.text_inputs(CAPTIONS))
    torch.testing.assert_close(ours.text(CAPTIONS), after.detach(), atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 1e-3


def test_saved_again_it_is_the_same(trained, loras, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(loras.cache_dir))
    for merge_lora in (True, False):
        first = Ours(f"local-dir:{trained / 'adapter'}", cache_dir=loras.cache_dir, merge_lora=merge_lora)
        first.model.save_pretrained(tmp_path / str(merge_lora))
        again = Ours(f"local-dir:{tmp_path / str(merge_lora)}", cache_dir=loras.cache_dir, merge_lora=merge_lora)
        assert torch.equal(first.text(CAPTIONS), again.text(CAPTIONS))
        pictures = [samples.picture(448)]
        assert torch.equal(first.images(pictures), again.images(pictures))


def test_nothing_is_written_into_the_cache(trained, loras):
    assert not list(loras.cache_dir.rglob("vladva*"))


def test_the_export_is_refused(loras, tmp_path):
    with pytest.raises(ValueError, match="positions='plain'"):
        vladva_clip.export_model(NAME, tmp_path / "out", cache_dir=str(loras.cache_dir))


def test_a_dry_run_names_memory_and_hours(capsys):
    words = f"qwen2vl_2b_24gb model.name={NAME} --dry-run".split()
    assert cli.main(words) in (0, 1)  # 1 where this machine lacks something
    said = capsys.readouterr().out
    assert "(2,208,985,600 frozen; " in said and "captions assumed" in said
    assert float(said.split("Memory per process, predicted: ")[1].split(" GiB")[0]) > 10
    assert "a million pairs" in said and "h100" in said


def test_it_generates(loras):
    """With the merged weights' own head."""
    ours = Ours(NAME, image_size=56, cache_dir=loras.cache_dir)
    (text,) = ours.model.generate(ours.preprocess(samples.picture(448))[None], max_new_tokens=3)
    assert isinstance(text, str) and BASE.repo.startswith("Qwen/")
