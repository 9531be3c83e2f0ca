"""A dry run's plan against a real step: what trains, what is saved for the backward pass, memory and compute."""

import io
import json
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from webdataset import TarWriter

import vladva_clip
from tests.support.memory import LiveBytes
from tests.support.training.steps import trainable_names
from vladva_clip.interface import machine
from vladva_clip.workers import shared_memory
from vladva_training.config import ModelSection, Recipe
from vladva_training.data.examples import Example
from vladva_training.overrides import apply
from vladva_training.plan.architecture import Base, find_base
from vladva_training.plan.compute import step_flops
from vladva_training.plan.dry_run import describe, measure, other_trainable
from vladva_training.plan.memory import Share, predict_memory, saved_bytes
from vladva_training.recipes import RECIPES, debug, llava15_7b
from vladva_training.step.batches import Batch
from vladva_training.step.fused import FusedForward
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.trainable import load_trainable

pytestmark = pytest.mark.wide

SHORT, LONG = 12, 60


@pytest.fixture(autouse=True)
def same_machine(monkeypatch):
    """Fixed available memory, since other programs change the real one."""
    monkeypatch.setattr(machine, "available_memory", lambda: 64 * 2**30)


def random_batch(model, count: int) -> Batch:
    """A batch in which all rows of a kind have one length, so that nothing is padded."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> torch.Tensor:
        return torch.randint(10, 500, (length,), generator=generator)

    pixels = torch.randn(count, 3, *model.visual.image_size, generator=generator)
    examples = [
        Example(str(row), pixels[row], ids(SHORT), None, ids(LONG - 1), (), f"caption {row}") for row in range(count)
    ]
    return Batch.collate(examples, eos_id=1)


def real_step(recipe: Recipe, count: int) -> tuple[Batch, GlobalStep]:
    model, _ = load_trainable(recipe.model)
    return random_batch(model, count), GlobalStep(FusedForward(model, recipe.loss, recipe.batch), recipe)


known = cache(find_base)


def within(factor: float, found: float, expected: float) -> bool:
    return expected / factor <= found <= expected * factor


@pytest.mark.parametrize(("train", "loss"), [("lora", "info_nce"), ("full", "sigmoid"), ("none", "info_nce")])
def test_what_trains_is_what_really_trains(train, loss):
    recipe = apply(debug(), [f"model.train={train}", f"loss.contrastive={loss}"])
    model, _ = load_trainable(recipe.model)
    fused = FusedForward(model, recipe.loss, recipe.batch)
    real = {name.removeprefix("model.") for name in trainable_names(fused)}
    base = known(recipe.model)
    planned = {f"visual.backbone.{name}" for name in base.trained} | set(other_trainable(recipe, base))
    assert planned == real
    count = sum(p.numel() for p in fused.parameters() if p.requires_grad)
    assert sum(p.numel() for p in base.trained.values()) + sum(other_trainable(recipe, base).values()) == count
    assert f"{count:,} parameters" in describe(recipe)


FAMILIES = ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "llava_onevision")


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_as_long_as_the_towers_make_them(bases, family):
    model, _ = vladva_clip.create_model(f"local-dir:{bases[family]}")
    base = find_base(ModelSection(name=f"local-dir:{bases[family]}"))
    prompts = model.visual.prompts
    lengths = base.lengths(SHORT, LONG)
    assert lengths.image == len(prompts.image_row(model.visual.num_visual_tokens))
    assert lengths.text == prompts.text_length(SHORT)
    assert (
        lengths.in_image_row()
        == prompts.continued_batch([torch.zeros(LONG)], base.num_visual_tokens).input_ids.shape[1]
    )


@pytest.mark.parametrize("profile", [None, "ops-mm-2b"])
def test_an_image_size_that_the_tower_cannot_take(bases, profile):
    section = ModelSection(name=f"local-dir:{bases['qwen2_vl']}", profile=profile, image_size=100)
    with pytest.raises(ValueError, match="100 pixels.*multiple of 28"):
        find_base(section)


@pytest.mark.parametrize(("autocast", "attention"), [("bf16", "none"), ("fp32", "eager")])
def test_saved_bytes_are_those_of_a_real_trunk(autocast, attention):
    recipe = apply(debug(), [f"batch.autocast={autocast}", f"model.attention={attention}"])
    model, _ = load_trainable(recipe.model)
    backbone, saved = model.visual.backbone, {}

    def keep(tensor):
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    embeddings = torch.randn(4, 90, backbone.embed_dim, requires_grad=True)
    autocasting = torch.autocast("cpu", torch.bfloat16, enabled=autocast == "bf16")
    with autocasting, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone.trunk(embeddings, backbone.position_ids(90, None, 0))
    own = {parameter.untyped_storage()._cdata for parameter in backbone.parameters()}
    real = sum(storage.nbytes() for key, storage in saved.items() if key not in own)
    planned = saved_bytes(known(recipe.model).backbone, 4, 90, autocast == "bf16")
    assert within(1.1, planned, real), (planned, real)


@pytest.mark.parametrize(("train", "precision"), [("lora", "fp32"), ("lora", "bf16"), ("full", "fp32")])
@pytest.mark.parametrize("checkpointing", ["false", "true"])
@pytest.mark.parametrize("micro", ["none", "4"])
def test_memory_is_that_of_a_real_step(micro, checkpointing, train, precision):
    words = [f"model.gradient_checkpointing={checkpointing}", f"model.train={train}", f"model.precision={precision}"]
    recipe = apply(debug(), ["batch.size=8", f"batch.micro_size={micro}", *words])
    batch, step = real_step(recipe, 8)
    with LiveBytes() as real:
        step(batch)
    planned = plan_memory(recipe)
    held = planned.gradients + planned.visual_tokens + planned.activations + planned.logits
    assert within(1.5, held, real.peak), (held, real.peak)


def plan_memory(recipe: Recipe):
    base = known(recipe.model)
    outside = sum(other_trainable(recipe, base).values())
    lengths = base.lengths(SHORT, LONG)
    return predict_memory(recipe, base.backbone, Share.of(recipe), lengths, base.num_visual_tokens, outside)


@pytest.mark.parametrize("checkpointing", ["false", "true"])
@pytest.mark.parametrize(("micro", "train"), [("4", "lora"), ("4", "none"), ("none", "full")])
def test_compute_is_that_of_a_real_step(micro, train, checkpointing):
    words = [f"model.train={train}", f"model.gradient_checkpointing={checkpointing}"]
    recipe = apply(debug(), ["batch.size=8", f"batch.micro_size={micro}", *words])
    batch, step = real_step(recipe, 8)
    with FlopCounterMode(display=False) as real:
        step(batch)
    base = known(recipe.model)
    planned = step_flops(recipe, base.backbone, Share.of(recipe), base.lengths(SHORT, LONG), base.config.image.size)
    assert within(1.15, planned, real.get_total_flops()), (planned, real.get_total_flops())


def test_checkpointing_and_micro_batches_lower_the_activations():
    whole = apply(debug(), ["batch.micro_size=none"])
    cached, at_once = plan_memory(debug()), plan_memory(whole)
    for recipe, without in ((debug(), cached), (whole, at_once)):
        checkpointed = plan_memory(apply(recipe, ["model.gradient_checkpointing=true"]))
        assert checkpointed.activations < without.activations / 3
    assert cached.activations < at_once.activations / 1.5
    other = plan_memory(apply(debug(), ["batch.visual_cache=cpu", "optim.ema_decay=0.99"]))
    assert cached.visual_tokens > 0 and other.visual_tokens == 0
    assert other.average == cached.gradients and cached.average == 0


@cache
def plan_of(name: str) -> str:
    return describe(RECIPES[name]())


def test_the_7b_as_calculated_by_hand():
    """LoRA: 32 layers of 4 x 16 x (4096 + 4096) and 3 x 16 x (4096 + 11008); compute: reference PERFORMANCE.md, 30."""
    base, recipe = known(llava15_7b().model), llava15_7b()
    lora = 32 * 16 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    assert sum(parameter.numel() for parameter in base.trained.values()) == lora == 39_976_960
    assert base.backbone.vocab_size == 32064 and all(p.is_meta for p in base.backbone.parameters())
    flops = step_flops(recipe, base.backbone, Share.of(recipe), base.lengths(14, 200), 336) / 1024
    assert 28e12 < flops < 33e12
    memory = plan_memory(recipe)
    assert within(1.01, memory.weights, 2 * 7.06e9 + 4 * lora) and memory.total < 70e9
    quantized = plan_memory(replace(recipe, model=replace(recipe.model, train="qlora")))
    assert within(1.05, quantized.weights, 0.516 * 6.48e9 + 2 * 0.58e9 + 4 * lora)


def test_the_loaders_memory_is_shown_with_the_containers_option(monkeypatch):
    """17 batches of 1024 x 3 x 336 x 336 x 4 bytes, and twice 8 more being assembled."""
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 64 * 2**20)
    monkeypatch.setattr(shared_memory, "available_memory", lambda: 64 * 2**30)
    text = describe(llava15_7b())
    assert "8 workers x 2 batches of 1.3 GiB: 22.0 GiB of shared memory, 42.6 GiB of memory in all" in text
    assert "docker run --shm-size=28g; here 64.0 MiB free in /dev/shm, 64.0 GiB of memory available" in text
    assert "even one worker needs 2.6 GiB" in text
    assert "Loader per process" not in describe(debug())  # it reads without workers


def test_full_fine_tuning_holds_the_base_in_float32(bases):
    section = ModelSection(name=f"local-dir:{bases['llava']}", precision="bf16", train="full")
    model, _ = load_trainable(section)
    assert (
        {p.dtype for p in find_base(section).backbone.parameters()} == {model.visual.backbone.dtype} == {torch.float32}
    )


def test_the_share_of_a_process_and_its_text_rows():
    recipe = apply(
        debug(), ["batch.size=16", "batch.micro_size=8", "loss.hard_negatives=3", "loss.text_text_weight=0.5"]
    )
    assert Share.of(recipe, 2) == Share(images=8, micro=8, texts_per_image=5)
    assert not Share.of(recipe, 2).grad_cache and Share.of(recipe, 1).grad_cache


def test_captions_of_local_sources_are_measured():
    base = known(debug().model)
    found = measure(debug(), base)
    assert found.records == 4000 and 5 < found.short < 30 <= found.long <= found.longest_long
    missing = measure(apply(debug(), ["data.train=jsonl:/nowhere/pairs.jsonl"]), base)
    assert missing.records is None and "/nowhere/pairs.jsonl" in missing.origin
    assert missing.longest_long == 501  # with its end of text
    mixed = measure(apply(debug(), ["data.train=scenes:train:8,scenes:test:8", "data.weights=1,3"]), base)
    assert mixed.records == 16 and 5 < mixed.short < 30


def test_the_share_of_images_with_a_long_caption_is_measured(tmp_path):
    rows = [{"image_path": "a.png", "caption": "a cat"}, {"image_path": "a.png", "captions": ["a cat", "red " * 50]}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    found = measure(apply(debug(), [f"data.train=jsonl:{tmp_path}/pairs.jsonl"]), known(debug().model))
    assert found.share_long == 0.5 and found.longest_long / 2 == found.long > 15


def test_what_stands_before_a_long_caption_costs_tokens_where_there_is_one(monkeypatch):
    """It lengthens image rows, not those without a long caption, and nothing is predicted there."""
    base, recipe = known(debug().model), debug()
    monkeypatch.setattr(Base, "turn_tokens", 0)
    plain = base.lengths(SHORT, LONG)
    flops = step_flops(recipe, base.backbone, Share.of(recipe), plain, 64)
    monkeypatch.setattr(Base, "turn_tokens", 20)
    lengths = base.lengths(SHORT, LONG, share_long=0.5)
    assert lengths.in_image_row() == plain.image + 10 + LONG and lengths.in_image_row(False) == plain.image
    assert lengths.long == LONG
    assert step_flops(recipe, base.backbone, Share.of(recipe), lengths, 64) > flops
    assert re.search(r"20 of the second turn, \d+ of the caption", describe(recipe, "cpu"))


def test_two_of_many_shards_are_measured(tmp_path):
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    for shard in range(4):
        with TarWriter(str(tmp_path / f"{shard}.tar")) as tar:
            for row in range(3):
                tar.write({"__key__": str(row), "jpg": jpeg.getvalue(), "txt": "a red circle"})
    recipe = apply(debug(), [f"data.train=wds:{tmp_path}", "run.steps=none", "batch.size=2", "run.epochs=10"])
    assert "One step of about 60," in describe(recipe)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["0.tar.index.json", "2.tar.index.json"]


def test_a_dry_run_downloads_no_data_set():
    assert "a dry run downloads nothing" in describe(apply(debug(), ["data.train=hf:someone/something:train"]))


def test_the_steps_of_a_run_of_epochs():
    assert "One step of 750," in describe(apply(debug(), ["run.steps=none", "run.epochs=3"]))


def test_changed_keys_are_marked():
    lines = describe(apply(debug(), ["seed=5", "data.weights=2"])).splitlines()
    assert [line.split() for line in lines if line.startswith("* ")] == [
        ["*", "data.weights", "2.0"],
        ["*", "seed", "5"],
    ]


def test_an_adapter_is_planned_like_its_base(tmp_path):
    model, _ = vladva_clip.create_model("vladva-tiny", "base")
    model.save_pretrained(tmp_path)
    for words in (["model.name=local-dir:" + str(tmp_path), "model.pretrained=none"], [f"model.pretrained={tmp_path}"]):
        recipe = apply(debug(), words)
        assert describe(recipe).partition("What trains")[2] == plan_of("debug").partition("What trains")[2] != ""


def test_unknown_models_and_tokenizers_are_reported():
    text = describe(apply(debug(), ["model.name=hf-hub:someone/something", "model.pretrained=none"]))
    assert "unknown: hf-hub:someone/something" in text and "model.name" in text
    assert "soft prompts are estimated" in plan_of("llava15_7b") and "is not on this machine" in plan_of("llava15_7b")


def test_an_invalid_model_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="did you mean vladva-tiny"):
        describe(apply(debug(), ["model.name=vladva-tny"]))
    with pytest.raises(ValueError, match="valid tags: base"):
        describe(apply(debug(), ["model.pretrained=scene"]))
    with pytest.raises(ValueError, match="config.json"):
        describe(apply(debug(), [f"model.name=local-dir:{tmp_path}", "model.pretrained=none"]))
