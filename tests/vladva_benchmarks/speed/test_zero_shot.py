"""The classifier's benchmark at a tiny size: all ways give the same weights, and the figures come out. No times."""

import json

import open_clip
import pytest
import torch

import vladva_clip
from vladva_benchmarks.speed import zero_shot

NAMES, TEMPLATES = open_clip.IMAGENET_CLASSNAMES[:3], open_clip.OPENAI_IMAGENET_TEMPLATES[:2]


def test_the_ways_give_the_same_weights(source):
    check_ways(source)


def test_they_do_with_a_trained_adapter():
    check_ways("vladva-tiny")


def check_ways(source):
    model, _ = vladva_clip.create_model(source, precision="fp32")
    builds = zero_shot.ways(model, vladva_clip.get_tokenizer(source), NAMES, TEMPLATES)
    assert list(builds) == list(zero_shot.WAYS)
    ours, *others = (build() for build in builds.values())
    for other in others:
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-5)


def test_only_the_naive_way_runs_whole_rows(source, monkeypatch):
    model, _ = vladva_clip.create_model(source, precision="fp32")
    tokenizer = vladva_clip.get_tokenizer(source, context_length=100)
    lvlm, widths = model.visual.backbone.lvlm, []
    lvlm.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    builds = zero_shot.ways(model, tokenizer, NAMES, TEMPLATES)
    longest = max(map(len, tokenizer.ids([template(name) for template in TEMPLATES for name in NAMES])))
    for way, caption in (("padded", longest), ("naive", 99)):
        widths.clear()
        builds[way]()
        assert widths == [(6, model.text.prompts.text_length(caption))]
    widths.clear()
    builds["single"]()
    assert len(widths) == 6 and max(widths) == (1, model.text.prompts.text_length(longest))


def test_other_weights_are_refused():
    weights = torch.nn.functional.normalize(torch.randn(8, 3), dim=0)
    with pytest.raises(ValueError, match="cosine .* is .*, expected above 0.99999"):
        zero_shot.compare({"ours": lambda: weights, "naive": lambda: weights.flip(0)}, repeats=1)
    with pytest.raises(ValueError, match="cosine .* is nan"):
        zero_shot.compare({"ours": lambda: weights, "naive": lambda: weights * torch.nan}, repeats=1)


def test_every_way_is_first_in_some_turn():
    order = []
    builds = {name: lambda name=name: order.append(name) or torch.eye(3) for name in "abc"}
    found = zero_shot.compare({"ours": builds["a"], "open_clip": builds["b"], "naive": builds["c"]}, repeats=3)
    assert order == list("abcbcacab")
    assert {len(times) for times in found["seconds"].values()} == {3} and found["least_cosine"] == 1
    assert found["ratios"]["seconds"]["ours"] == {"min": 1, "median": 1, "max": 1}


def test_a_part_is_taken_evenly():
    assert zero_shot.evenly(range(10), 3) == [0, 3, 6] and zero_shot.evenly(range(4), None) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="11 .* 10"):
        zero_shot.evenly(range(10), 11)


def test_the_command_prints_a_table_and_writes_all_figures(source, tmp_path, capsys):
    path = tmp_path / "figures.json"
    options = ["--classes", "3", "--templates", "2", "--precision", "fp32", "--json", str(path)]
    zero_shot.main(["--model", source, *options])
    printed, found = capsys.readouterr().out, json.loads(path.read_text())
    assert "3 classes x 2 templates" in printed
    assert all(f"| {name} |" in printed for name in (*zero_shot.WAYS, "from the cache"))
    assert found["least_cosine"] > 0.99999 and found["cache"]["seconds"]["ratio"]["median"] > 0
    assert set(found["versions"]) == {"torch", "transformers", "open_clip"} and found["hardware"]
