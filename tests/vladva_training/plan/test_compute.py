"""A step's predicted operations against those that torch counts in a real one."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.support.training.steps import recipe
from vladva_training.config import LossSection
from vladva_training.data.examples import Example
from vladva_training.overrides import apply
from vladva_training.plan.architecture import find_base
from vladva_training.plan.compute import step_flops
from vladva_training.plan.memory import Share
from vladva_training.step.batches import Batch
from vladva_training.step.fused import FusedForward
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.half_precision import linear_weights
from vladva_training.step.trainable import load_trainable

SHORT, LONG, IMAGES = 12, 60, 8
WORDS = {  # what changes a step's operations
    "at once": [],
    "GradCache": ["batch.micro_size=4"],
    "GradCache, checkpointing": ["batch.micro_size=4", "model.gradient_checkpointing=true"],
    "full": ["batch.micro_size=4", "model.train=full"],
    "soft prompts alone": ["batch.micro_size=4", "model.train=none"],
    "no long captions": ["batch.micro_size=4", "loss.ntp_weight=0"],
    "more text rows": ["loss.hard_negatives=2"],
}


def counted(whole) -> tuple[float, dict]:
    """The operations that torch counts in a step in which nothing is padded."""
    model, _ = load_trainable(whole.model)
    model.visual.backbone.lvlm.set_attn_implementation("eager")  # torch counts no other attention on a CPU
    generator = torch.Generator().manual_seed(0)

    def ids(length):
        return torch.randint(10, 100, (length,), generator=generator)

    pixels = torch.randn(IMAGES, 3, *model.visual.image_size, generator=generator)
    false = [tuple(ids(SHORT) for _ in range(whole.loss.hard_negatives)) for _ in range(IMAGES)]
    examples = [
        Example(str(row), pixels[row], ids(SHORT), None, ids(LONG - 1), false[row], str(row), ("",) * len(false[row]))
        for row in range(IMAGES)
    ]
    batch = Batch.collate(examples, eos_id=1)
    step = GlobalStep(FusedForward(model, whole.loss, whole.batch), whole)
    with FlopCounterMode(display=False) as real:
        step(batch)
    return real.get_total_flops(), real.get_flop_counts()["Global"]


def left_out(whole, base, counts) -> float:
    """What `step_flops` leaves out: the half of attention that causality saves on a GPU, first layer, projectors."""
    text, with_long = base.backbone.lvlm.config.get_text_config(), whole.loss.ntp_weight > 0
    lengths, share = base.lengths(SHORT, LONG), Share.of(whole)
    texts = share.texts_per_image * lengths.text**2
    passes = (3 + whole.model.gradient_checkpointing) * (lengths.in_image_row(with_long) ** 2 + texts)
    passes += lengths.image**2 + texts if share.grad_cache else 0
    width = base.backbone.trunk_module.layers[0].self_attn.o_proj.in_features
    attention = 2 * IMAGES * passes * width * text.num_hidden_layers
    convolution = sum(number for operation, number in counts.items() if "convolution" in str(operation))
    tower = base.backbone.vision_tower
    names = ("multi_modal_projector", "connector")
    projector = next((p for p in (getattr(base.backbone.lvlm.model, name, None) for name in names) if p), None)
    projector = projector or tower.merger
    projectors = linear_weights(projector) + linear_weights(getattr(tower, "deepstack_merger_list", nn.Module()))
    return attention + convolution + 2 * IMAGES * projectors * base.num_visual_tokens


LATER_FAMILIES = ("llava_next", "qwen3_vl", "internvl", "idefics3", "llava_onevision")
LATER = [pytest.param(family, marks=pytest.mark.wide) for family in LATER_FAMILIES]


@pytest.mark.parametrize("case", WORDS)
@pytest.mark.parametrize("family", ["llava", "qwen2_vl", *LATER])
def test_operations_are_those_that_torch_counts(bases, family, case):
    """To the last one, except for a class token and the last layer of LLaVA's vision tower, which nothing reads."""
    whole = recipe(bases[family], LossSection(), None, size=IMAGES)
    whole = apply(whole, ["model.attention=eager", *WORDS[case]])
    base = find_base(whole.model)
    planned = step_flops(whole, base.backbone, Share.of(whole), base.lengths(SHORT, LONG), base.config.image.size)
    real, counts = counted(whole)
    assert planned + left_out(whole, base, counts) == pytest.approx(
        real,
        rel=0.025 if family in ("llava", "llava_next", "internvl") else 2e-4,  # the loss's products
    )
