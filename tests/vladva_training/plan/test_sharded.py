"""Full tuning on several processes: what each holds, what a step gathers, and what a refusal suggests."""

from dataclasses import replace

import pytest
import torch

from vladva_clip.interface import machine
from vladva_training.overrides import apply
from vladva_training.plan import fit
from vladva_training.plan.architecture import find_base
from vladva_training.plan.caption_lengths import measure
from vladva_training.plan.fit import Fit, Room
from vladva_training.plan.memory import Share
from vladva_training.recipes import llava15_7b

pytestmark = pytest.mark.wide

GIB = 2**30
CPU = torch.device("cpu")


@pytest.fixture
def has(monkeypatch):
    """Set the machine's available memory, in bytes."""
    return lambda size: monkeypatch.setattr(machine, "available_memory", lambda: size)


def test_processes_divide_what_full_tuning_holds(has, monkeypatch):
    """Weights, gradients and moments: 101.6 GiB, of which the frozen vision side, 1.2 GiB, is whole in each process."""
    full = apply(llava15_7b(), ["model.train=full"])
    base = find_base(full.model)
    whole = Fit(full, base, Room.on(CPU), 1)
    frozen = sum(4 * p.numel() for p in base.backbone.parameters() if not p.requires_grad)
    for count in (2, 8):
        parted = Fit(full, base, Room.on(CPU), count)
        assert parted.sharded and not whole.sharded
        assert parted.least == pytest.approx(frozen + (whole.least - frozen) / count, rel=1e-9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    has(102 * GIB)
    with pytest.raises(ValueError, match=r"at least 102\.8 GiB \(weights 13\.8 GiB.* in each process.*more machines"):
        Fit.of_run(full, CPU)
    has(103 * GIB)
    Fit.of_run(full, CPU)


def test_a_sharded_step_also_holds_what_is_gathered():
    """By hand: layers of 4 x 4096 x 4096 + 3 x 4096 x 11008 weights and two norms, beside embedding, head and norm."""
    full = apply(llava15_7b(), ["model.train=full", "batch.micro_size=1", "model.gradient_checkpointing=true"])
    base = find_base(full.model)
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096
    rest = 2 * 32064 * 4096 + 4096
    captions = assumed_captions(full, base)
    alone, eight = (Fit(full, base, Room.on(CPU), n).predict(captions, Share.of(full, n)) for n in (1, 8))
    assert alone.gathered == 0 and eight.gathered == 4 * (2 * rest + 3 * layer)
    assert eight.optimizer == pytest.approx(alone.optimizer / 8, rel=1e-9)
    assert eight.total < alone.total / 3
    lora = apply(llava15_7b(), [])
    lora_base = find_base(lora.model)
    one, many = (Fit(lora, lora_base, Room.on(CPU), n).predict(captions, Share.of(lora, n)) for n in (1, 8))
    assert many.gathered == 0 and (many.weights, many.optimizer) == (one.weights, one.optimizer)


def assumed_captions(recipe, base):
    return measure(recipe, replace(base, tokenizer=None))


def test_more_gpus_are_suggested_for_full_tuning_only(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(fit, "memory_of", {gpu: 80 * GIB}.__getitem__)
    with pytest.raises(ValueError, match=r"can't fit.*model\.train=lora.*a larger device, or at least 2 of them"):
        Fit.of_run(apply(llava15_7b(), ["model.train=full"]), gpu)
    monkeypatch.setattr(fit, "memory_of", {gpu: 20 * GIB}.__getitem__)
    with pytest.raises(ValueError, match="at least 6 of them"):  # 101.6 / 20
        Fit.of_run(apply(llava15_7b(), ["model.train=full"]), gpu)
    with pytest.raises(ValueError, match="more devices don't help"):
        Fit.of_run(apply(llava15_7b(), ["model.precision=fp32"]), gpu)
