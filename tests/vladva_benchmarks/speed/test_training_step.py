"""The step's benchmark at a tiny size: both schemes give the same gradients, and the figures come out. No times."""

import json

import pytest
import torch

from vladva_benchmarks import gauges
from vladva_benchmarks.speed import training_step
from vladva_benchmarks.speed.step_shapes import SHAPES, random_batch


@pytest.fixture(scope="module")
def bench():
    return training_step.Bench.build(SHAPES["tiny"])


def test_both_schemes_give_the_same_gradients(bench):
    (ours, our_flops), (peers, peer_flops) = (bench.gradients(scheme) for scheme in training_step.SCHEMES)
    assert training_step.largest_difference(ours, peers, 1e-4) <= 1e-4
    assert {"logit_scale", "visual.soft_prompt.weight"} <= set(ours)
    assert any("lora_A" in name for name in ours) and 0 < our_flops < peer_flops


def test_both_schemes_give_the_same_losses(bench):
    ours, peers = (bench.steps[scheme](bench.batch) for scheme in training_step.SCHEMES)
    assert peers == pytest.approx(ours.losses, rel=1e-5)


def test_checkpointing_is_the_peers_alone(bench):
    bench.run("peers")
    assert not any(getattr(module, "gradient_checkpointing", False) for module in bench.model.modules())


def test_other_gradients_are_refused():
    gradients = {"a": torch.ones(3), "b": torch.ones(2)}
    with pytest.raises(ValueError, match="gradients of b differ by 5.0e-01"):
        training_step.largest_difference({**gradients, "b": torch.full((2,), 1.5)}, gradients, 1e-4)
    with pytest.raises(ValueError, match="only one scheme"):
        training_step.largest_difference({"a": gradients["a"]}, gradients, 1e-4)


def test_a_gradient_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="differ by nan"):
        training_step.largest_difference({"a": torch.full((2,), torch.nan)}, {"a": torch.ones(2)}, 1e-4)


@pytest.mark.wide
def test_the_command_prints_a_table_and_writes_all_figures(tmp_path, capsys):
    path = tmp_path / "step.json"
    options = ["--batch-size", "4", "--repeats", "2", "--memory-repeats", "1", "--json", str(path)]
    training_step.main(["--shape", "tiny", *options])
    printed = capsys.readouterr().out
    report = json.loads(path.read_text())
    assert "samples/s" in printed and "peak memory beyond the model" in printed
    assert report["gradient_difference"] <= 1e-4 and report["batch_size"] == 4
    for ratio in (report["speed_ratio"], report["memory_ratio"]):
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert {len(times) for times in report["seconds"].values()} == {2}
    assert report["alone"]["batch_size"] == SHAPES["tiny"].alone
    assert set(report["versions"]) == {"torch", "transformers", "peft"} and report["hardware"]


def test_the_memory_of_one_scheme_is_printed_alone(capsys):
    training_step.main(["--shape", "tiny", "--memory-of", "ours"])
    assert int(capsys.readouterr().out) >= 0


def test_peak_memory_sees_what_is_freed_again():
    found = gauges.peak_bytes(lambda: torch.ones(64_000_000).sum(), torch.device("cpu"))
    assert found == pytest.approx(256e6, rel=0.2)


def test_captions_keep_the_lengths_of_the_shape_and_end():
    shape = SHAPES["small"]
    batch = random_batch(shape, 40, eos_id=1)
    assert {shape.short[0] <= len(caption) <= shape.short[1] for caption in batch.short} == {True}
    assert {shape.long[0] <= len(caption) <= shape.long[1] for caption in batch.long} == {True}
    assert all(caption[-1] == 1 and (caption[:-1] >= 600).all() for caption in batch.long)


def test_the_shapes_have_the_visual_tokens_and_rows_that_they_say():
    patches = {name: (shape.vision["image_size"] // shape.vision["patch_size"]) ** 2 for name, shape in SHAPES.items()}
    assert patches == {"tiny": 4, "small": 196, "7b": 576}
    assert SHAPES["small"].text["vocab_size"] == SHAPES["7b"].text["vocab_size"] == 32064
