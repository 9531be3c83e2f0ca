"""What a run needs at least, compared with the available memory: refusals before loading, warnings, plans."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from tests.support import adapters, hub_cache
from tests.support.training.steps import LOSSES, batch_of, fused_forward, recipe, section
from vladva_clip.interface import devices, machine
from vladva_clip.sources import registry
from vladva_training import cli
from vladva_training.overrides import apply
from vladva_training.plan import fit
from vladva_training.plan.architecture import find_base
from vladva_training.plan.dry_run import describe
from vladva_training.plan.fit import Fit, Room, device_of
from vladva_training.plan.memory import saved_bytes
from vladva_training.recipes import debug, llava15_7b
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.optim import EMA, build_optimizer
from vladva_training.step.trainable import load_trainable, set_trainable

pytestmark = pytest.mark.wide

GIB = 2**30
CPU = torch.device("cpu")


@pytest.fixture
def has(monkeypatch):
    """Set the machine's available memory, in bytes."""
    return lambda size: monkeypatch.setattr(machine, "available_memory", lambda: size)


def held_after_a_step(whole, base):
    """Bytes of everything that is kept between two steps, including gradients."""
    model, _ = load_trainable(whole.model)
    fused = fused_forward(model, whole)
    average = EMA(fused, whole.optim.ema_decay) if whole.optim.ema_decay else None
    optimizer = build_optimizer(fused, whole.optim)
    GlobalStep(fused, whole)(batch_of(model))
    optimizer.step()
    kept = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim]
    kept += [*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return sum(tensor.nbytes for tensor in [*kept, *(average.averages.values() if average else ())])


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize(
    ("train", "precision"), [("lora", "bf16"), ("full", "bf16"), ("full", "fp32"), ("none", "fp32")]
)
def test_the_least_is_what_a_step_leaves_behind(base, train, precision, ema_decay):
    """Exact except for scalars: the moments of logit scale and bias have no dimension."""
    whole = recipe(base, LOSSES["info_nce"], 2, train=train, autocast="bf16")
    whole = replace(whole, model=replace(whole.model, precision=precision))
    whole = replace(whole, optim=replace(whole.optim, ema_decay=ema_decay))
    least = Fit(whole, find_base(whole.model), Room.on(CPU)).least
    assert 0 <= least - held_after_a_step(whole, base) <= 16


def test_an_adapters_own_lora_counts(base, tmp_path):
    """Of rank 4 on two of seven projections; frozen with model.train=none."""
    adapters.write_adapter(base, tmp_path)
    for train in ("lora", "none"):
        settings = section(tmp_path, lora_alpha=8, train=train)
        model, _ = load_trainable(settings)
        real = {name: p for name, p in model.visual.backbone.named_parameters() if p.requires_grad}
        planned = find_base(settings).trained
        assert {(name, p.shape, p.dtype) for name, p in planned.items()} == {
            (name, p.shape, p.dtype) for name, p in real.items()
        }
        assert bool(real) == (train == "lora")


def test_full_tuning_of_the_7b_as_calculated_by_hand(has):
    """Weights in float32; gradients and two moments of all but the vision side: 26.3 + 25.1 + 50.2 GiB."""
    full = apply(llava15_7b(), ["model.train=full"])
    has(101 * GIB)
    with pytest.raises(
        ValueError, match=r"at least 101\.6 GiB.*weights 26\.3 GiB, gradients 25\.1 GiB.*50\.2 GiB"
    ) as told:
        Fit.of_run(full, CPU)
    assert "101.0 GiB" in str(told.value) and "model.train=lora (13.8 GiB)" in str(told.value)
    has(102 * GIB)
    Fit.of_run(full, CPU)


@pytest.mark.parametrize(
    ("words", "size", "there", "ways"),
    [
        (["model.train=lora"], "13.8 GiB", 12, "a larger device"),
        (["model.train=lora", "model.precision=fp32"], "26.9 GiB", 14, "model.precision=bf16 (13.8 GiB)"),
        (["model.train=none", "loss.ntp_weight=0"], "13.2 GiB", 12, "a larger device"),
        (
            ["model.train=full", "model.precision=fp32"],
            "101.6 GiB",
            20,
            "model.train=lora model.precision=bf16 (13.8 GiB)",
        ),
        (["model.train=full", "optim.ema_decay=0.9"], "126.7 GiB", 110, "optim.ema_decay=0 (101.6 GiB)"),
    ],
)
def test_every_kind_of_training_is_checked(has, words, size, there, ways):
    has(there * GIB)
    with pytest.raises(ValueError) as told:
        Fit.of_run(apply(llava15_7b(), words), CPU)
    assert words[0] in str(told.value) and size in str(told.value) and f"{there}.0 GiB" in str(told.value)
    assert ways in str(told.value) and "qlora" not in str(told.value)  # which needs CUDA


def test_four_bits_need_less_and_are_suggested_on_a_gpu(monkeypatch):
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(fit, "memory_of", {gpu: 12 * GIB}.__getitem__)
    with pytest.raises(ValueError, match=r"cuda:1 has 12\.0 GiB in all.*model\.train=qlora \(4\.\d GiB\)"):
        Fit.of_run(llava15_7b(), gpu)
    Fit.of_run(apply(llava15_7b(), ["model.train=qlora"]), gpu)


def test_processes_share_a_machine_and_the_frozen_weights_may_be_one_copy(has, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    averaged = apply(llava15_7b(), ["optim.ema_decay=0.9"])  # 13.3 GiB of weights once, 0.75 GiB twice
    has(14 * GIB)
    with pytest.raises(ValueError, match=r"at least 14\.5 GiB.* in each process.*14\.0 GiB.* for 2 processes") as told:
        Fit.of_run(averaged, CPU)
    assert "more devices don't help" in str(told.value)
    has(15 * GIB)
    Fit.of_run(averaged, CPU)


def test_a_gpu_needs_more_than_its_tensors():
    """Half a GiB for CUDA and 15% for fragmentation, in the verdict and in a run's warning; a CPU needs neither."""
    room = Room(torch.device("cuda", 0), 80 * GIB)
    assert room.needs(60 * GIB) == pytest.approx(69.5 * GIB)
    assert Room(CPU, 80 * GIB, 2).needs(30 * GIB) == 60 * GIB


def test_unknown_memory_is_not_refused(has):
    has(None)
    found = Fit.of_run(apply(llava15_7b(), ["model.train=full"]), CPU)
    assert found.warnings([], None, 1) == []
    assert "the memory of cpu is not known" in describe(debug())
    assert Room.on(torch.device("mps")).holds(1000 * GIB)


def test_the_device_of_a_dry_run_is_that_of_the_run(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(None) == device_of("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "available", lambda: {"cuda": 4, "cpu": 1})
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert device_of(None) == device_of("cuda") == torch.device("cuda", 2)
    assert device_of("cuda:1") == torch.device("cuda", 1) and device_of("cpu") == CPU


def run(capsys, words):
    status = cli.main(words)
    told = capsys.readouterr()
    return status, told.out + told.err


def test_a_run_that_cannot_fit_ends_before_its_weights_are_loaded(has, monkeypatch, capsys, tmp_path):
    has(2**20)
    monkeypatch.setattr("vladva_training.train.load_trainable", None)
    for train in ("lora", "full", "none"):
        words = ["debug", f"model.train={train}", f"output_dir={tmp_path}", "--device", "cpu"]
        status, told = run(capsys, words)
        assert status == 2 and f"model.train={train} of vladva-tiny can't fit" in told and "1.0 MiB" in told


def test_a_run_that_may_not_fit_starts_with_a_warning(has, capsys, tmp_path):
    has(60 * 2**20)
    words = ["debug", "run.steps=1", f"output_dir={tmp_path}", "data.evaluation=none", "--device", "cpu"]
    status, told = run(capsys, words)
    assert status == 0 and "60.0 MiB" in told
    assert (
        "predicted for a step" in told and "batch.micro_size below 8" in told and "gradient_checkpointing=true" in told
    )


@pytest.mark.parametrize(
    ("there", "verdict"), [(2**20, "Here: can't fit"), (60 * 2**20, "Here: may not fit"), (GIB, "Here: fits")]
)
def test_a_dry_run_plans_for_other_machines_and_reports_on_this_one(has, capsys, there, verdict):
    has(there)
    status, told = run(capsys, ["debug", "--dry-run", "--device", "cpu"])
    assert status == 0 and verdict in told and machine.in_words(there) in told
    assert "Memory per process, predicted" in told and "a device with less than" in told


def test_bases_in_the_cache_and_registered_ones_are_known(bases, tmp_path, monkeypatch, has):
    hub_cache.put(tmp_path, "someone/base", bases["llava"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(registry._registered, "mine", registry._entry("mine", f"local-dir:{bases['llava']}"))
    has(2**10)
    for name in ("hf-hub:someone/base", "mine"):
        whole = apply(debug(), [f"model.name={name}", "model.pretrained=none"])
        with pytest.raises(ValueError, match="can't fit"):
            Fit.of_run(whole, CPU)


def test_damaged_files_are_left_to_the_loader(bases, tmp_path):
    """Its messages are more specific."""
    broken = shutil.copytree(bases["llava"], tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    whole = apply(debug(), [f"model.name=local-dir:{broken}", "model.pretrained=none"])
    assert Fit.of_run(whole, CPU).base is None


@pytest.mark.parametrize("train", ["lora", "qlora", "none"])
@pytest.mark.parametrize("words", ["fp16", "pure_fp16"])
def test_float16_under_what_trains_is_refused_everywhere(train, words):
    whole = apply(debug(), [f"model.precision={words}", f"model.train={train}"])
    for ask in (lambda: Fit.of_run(whole, CPU), lambda: describe(whole)):
        with pytest.raises(ValueError, match=r"float16 .*no loss scaling.*model\.precision=bf16"):
            ask()


def test_float16_weights_are_refused_as_an_adapter_s_own_dtype_and_in_a_model(bases, tmp_path):
    adapters.write_adapter(bases["llava"], tmp_path)
    stated = json.loads((tmp_path / "vladva_config.json").read_text())
    (tmp_path / "vladva_config.json").write_text(json.dumps({**stated, "dtype": "float16"}))
    own = section(tmp_path, precision=None, lora_alpha=8)
    with pytest.raises(ValueError, match="the dtype of local-dir:.*float16"):
        find_and_refuse(own)
    with pytest.raises(ValueError, match="float16"):
        load_trainable(own)
    model, _ = load_trainable(replace(own, precision="bf16"))
    with pytest.raises(ValueError, match="float16"):
        set_trainable(model.half(), own)


def find_and_refuse(settings):
    Fit.of_run(replace(debug(), model=settings), CPU)


def test_full_tuning_of_float16_files_is_in_float32(bases):
    settings = section(bases["llava"], precision="fp16", train="full")
    find_and_refuse(settings)
    model, _ = load_trainable(settings)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_copies_in_the_refusal_of_float16_are_those_of_a_step():
    """Of the 7B, 24.1 GiB: each linear layer's weights once under image rows, once under text rows."""
    backbones = [find_base(replace(llava15_7b().model, precision=word)).backbone for word in ("fp16", "bf16")]
    half, brain = (sum(saved_bytes(one, 1, length, True) for length in (600, 30)) for one in backbones)
    with pytest.raises(ValueError, match=r"2 bfloat16 copies.* \(24\.1 GiB\)"):
        Fit.of_run(apply(llava15_7b(), ["model.precision=fp16"]), CPU)
    assert 24.1 * GIB < half - brain < 25.5 * GIB


def test_checkpointing_brings_the_7b_below_21_gib_for_a_third_more_operations():
    """The figures of docs/training.md."""
    without = describe(apply(llava15_7b(), ["batch.micro_size=1"]))
    assert "predicted: 25.66 GiB" in without and "3.2e+04 TFLOP" in without
    checkpointed = describe(apply(llava15_7b(), ["model.gradient_checkpointing=true"]))
    assert "predicted: 20.55 GiB" in checkpointed and "4.34e+04 TFLOP" in checkpointed
