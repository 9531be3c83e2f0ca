"""Contrastive training over EmbeddingGemma 2 by its name; next-token prediction is refused."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vladva_clip
from tests.support.published import samples
from tests.support.published.ours import Ours, profile
from tests.support.training import runs
from vladva_training import cli
from vladva_training.config import ModelSection
from vladva_training.plan import compute
from vladva_training.plan.architecture import find_base

NAME = "embeddinggemma-2"
SETTINGS = (
    f"debug model.name={NAME} model.pretrained=none model.precision=fp32 model.lora_rank=2 model.soft_prompt=false "
    "model.image_size=144 batch.size=4 batch.micro_size=2 batch.autocast=fp32 run.steps=3 run.checkpoint_every=0 "
    "run.evaluate_every=0 optim.learning_rate=1e-2 data.num_workers=0 data.short_max_tokens=16 data.evaluation=none"
).split()


@pytest.fixture
def in_cache(gemma, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(gemma.cache_dir))


@pytest.mark.wide
@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_three_steps(gemma, in_cache, tmp_path, checkpointing):
    """Through GradCache. The adapter loads over the repository, and its features are the trained ones."""
    runs.write_pairs(tmp_path / "pairs.jsonl")
    words = [*SETTINGS, "loss.ntp_weight=0", f"model.gradient_checkpointing={checkpointing}"]
    assert cli.main([*words, f"data.train=jsonl:{tmp_path / 'pairs.jsonl'}", f"output_dir={tmp_path / 'run'}"]) == 0
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [step for step in steps if step["event"] == "train"]
    assert len(trained) == 3 and not any("ntp" in step for step in trained)
    stated = json.loads((tmp_path / "run" / "adapter" / "vladva_config.json").read_text())
    assert stated["base"]["profile"] == NAME and stated["encoding"] == profile(NAME)["config"]["encoding"]
    ours = Ours(f"local-dir:{tmp_path / 'run' / 'adapter'}", cache_dir=gemma.cache_dir)
    before = Ours(NAME, image_size=144, cache_dir=gemma.cache_dir)
    for found, other in (
        (ours.text(["a dog"]), before.text(["a dog"])),
        (ours.images([samples.picture(144)]), before.images([samples.picture(144)])),
    ):
        assert (found - other).abs().max() > 1e-3
    ours.model.save_pretrained(tmp_path / "again")
    again = Ours(f"local-dir:{tmp_path / 'again'}", cache_dir=gemma.cache_dir)
    assert torch.equal(again.text(["a dog"]), ours.text(["a dog"]))


def test_next_token_prediction_is_refused_before_the_start(in_cache, tmp_path, capsys):
    runs.write_pairs(tmp_path / "pairs.jsonl", 4)
    words = [*SETTINGS, f"data.train=jsonl:{tmp_path / 'pairs.jsonl'}", f"output_dir={tmp_path / 'run'}"]
    assert cli.main(words) != 0
    said = capsys.readouterr().err
    assert "bidirectional attention" in said and "loss.ntp_weight=0" in said


@pytest.mark.wide
@pytest.mark.parametrize("side", ["text", "image"])
def test_gradients_are_the_authors(gemma, way, side):
    """Of a projection of the features with respect to a layer's queries, in a padded batch."""
    from tests.support.published.gemma_authors import GemmaAuthors

    captions, pictures = ["a dog.", "two  cats on the street, parked"], [samples.picture(384)]
    theirs, ours = GemmaAuthors(gemma.directory(), 70), Ours(NAME, image_size=384, cache_dir=gemma.cache_dir)
    weights = [
        lvlm.language_model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
        for lvlm in (ours.model.visual.backbone.lvlm, theirs.model)
    ]
    if side == "text":
        found = ours.model.encode_text(ours.tokenizer(captions), normalize=True)
        expected = theirs.features(theirs.text_inputs(captions))
    else:
        found = ours.model.encode_image(ours.preprocess(pictures[0])[None], normalize=True)
        expected = theirs.features(theirs.image_inputs(pictures))
    direction = torch.randn(found.shape[1], generator=torch.Generator().manual_seed(0))
    for features in (found, expected):
        (features @ direction).sum().backward()
    scale = weights[1].grad.abs().max()
    assert scale > 1e-4
    torch.testing.assert_close(weights[0].grad / scale, weights[1].grad / scale, atol=1e-4, rtol=0)


def test_operations_of_the_trunk_are_those_that_torch_counts(gemma):
    """With heads of two widths, and attention that sees a window computed as if it saw all."""
    ours = Ours(NAME, image_size=384, cache_dir=gemma.cache_dir)
    backbone = ours.model.visual.backbone
    backbone.lvlm.set_attn_implementation({"text_config": "eager"})
    rows = ours.model.text.rows([torch.tensor(ids) for ids in ours.tokenizer.ids([samples.CAPTIONS["long"]])])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        rows.hidden_states()
    assert compute._forward(backbone, rows.embeddings.shape[1]) == counter.get_total_flops()


@pytest.mark.usefixtures("gemma")  # skips before transformers 5.19
def test_a_plan_without_the_files(tmp_path, monkeypatch):
    """The published sizes: width, visual tokens, what trains, and next-token prediction refused."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    base = find_base(ModelSection(name=NAME, lora_rank=16))
    assert base.num_visual_tokens == 256 and base.backbone.embed_dim == 768 and base.config.image.size == 768
    assert base.config == vladva_clip.sources.profiles.named(NAME).config_of()
    layers = [name for name in base.trained if "layers.5." in name]
    assert len(layers) == 2 * 9 and all(name.startswith("lvlm.language_model.layers.") for name in base.trained)
    assert not base.config.encoding.is_causal and not base.backbone.has_head
