"""The throughput command on real models: both ways give the same features, and the figures are printed."""

import json

import pytest
import torch

from vladva_benchmarks.speed import random_base, throughput
from vladva_clip.sources import registry
from vladva_training.config import ModelSection
from vladva_training.plan.architecture import find_base


def test_different_features_are_refused():
    features = torch.randn(4, 8)
    with pytest.raises(ValueError, match="differ"):
        throughput.compare(lambda _: features, lambda _: features.flip(0), [torch.zeros(4)], repeats=1)


def test_the_command_prints_a_ratio_for_each_modality(bases, tmp_path, capsys):
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({str(n): {"caption": f"a red circle on the {n} dog"} for n in range(8)}))
    options = ["--batch-size", "4", "--batches", "2", "--repeats", "2", "--captions", str(captions)]
    throughput.main(["--model", f"local-dir:{bases['llava']}", *options, "--precision", "fp32"])
    printed = capsys.readouterr().out
    assert printed.count("times as fast") == 2 and "texts/s" in printed and "images/s" in printed


def test_random_weights_need_no_download(capsys):
    options = ["--batch-size", "2", "--batches", "1", "--repeats", "1", "--precision", "fp32"]
    throughput.main(["--model", "vladva-tiny", "--random-weights", *options])
    assert capsys.readouterr().out.count("times as fast") == 2


@pytest.mark.parametrize(("name", "tokens"), [("smolvlm-256m", 64), ("smolvlm-2.2b", 81), ("qwen3-vl-2b", 256)])
def test_a_random_base_has_the_published_size(tmp_path, name, tokens):
    base = find_base(ModelSection(name=f"local-dir:{random_base.write(tmp_path, name)}"))
    assert sum(one.numel() for one in base.backbone.lvlm.parameters() if not one.requires_grad) == (
        registry.facts(name).num_parameters
    )
    assert base.num_visual_tokens == tokens and base.prompts is not None


@pytest.mark.wide
def test_a_random_embedder_is_read_with_its_profile():
    pytest.importorskip("transformers", minversion="5.19")
    model, _, tokenizer = throughput._load("embeddinggemma-2", "bf16", "cpu", random_weights=True)
    assert model.config.encoding.pooling == "mean" and model.visual.image_size == (768, 768)
    lvlm = model.visual.backbone.lvlm
    assert sum(one.numel() for one in lvlm.parameters()) == registry.facts("embeddinggemma-2").num_parameters
    assert tokenizer(["a red circle"]).shape[0] == 1


def test_captions_come_from_drawn_scenes_without_a_file():
    captions = throughput.read_captions(None, 7)
    assert len(captions) == 7 and all(isinstance(caption, str) for caption in captions)


def test_captions_of_files(tmp_path):
    """SugarCrepe's JSON and lines of text, in UTF-8 whatever the locale; too few are refused, as is another layout."""
    (tmp_path / "a.json").write_text('{"0": {"caption": "a"}, "1": {"caption": "é"}}', encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfc\r\n\r\nd\n")
    assert throughput.read_captions([tmp_path / "a.json", tmp_path / "b.txt"], 4) == ["a", "é", "c", "d"]
    with pytest.raises(ValueError, match="hold 2, expected 3"):
        throughput.read_captions([tmp_path / "a.json"], 3)
    for content in ('[{"caption": "a"}]', '{"0": {"caption": 5}}', '{"0": "a"}', "{"):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(ValueError, match="a.json"):
            throughput.read_captions([tmp_path / "a.json"], 1)
