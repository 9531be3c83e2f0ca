"""The step, at once and in micro-batches, against the loss written out pair by pair in one graph."""

import pytest
import torch

from tests.support.memory import LiveBytes
from tests.support.training import formula
from tests.support.training.steps import (
    LOSSES,
    assert_equal,
    batch_of,
    double_model,
    fused_forward,
    moved,
    one_step,
    recipe,
    rows_of,
    small_model,
    without_short,
)
from vladva_training.config import LossSection
from vladva_training.step.grad_cache import GlobalStep


@pytest.fixture(scope="module")
def model(base):
    return double_model(base)


@pytest.fixture(scope="module")
def batch(model):
    return batch_of(model)


def trimmed(batch, loss):
    """A batch without false captions if the loss uses none."""
    return batch if loss.hard_negatives else type(batch)(**{**vars(batch), "hard_negatives": ((),) * len(batch)})


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_and_losses_are_those_of_the_formula(model, base, batch, name):
    """Images 1 and 2 lack a short and a long caption."""
    loss = LOSSES[name]
    batch = trimmed(batch, loss)
    fused = fused_forward(model, recipe(base, loss))
    expected, expected_losses = formula.step(fused, recipe(base, loss), batch)
    assert all(gradient.abs().max() > 0 for gradient in expected.values() if gradient.ndim)
    for micro_size in (None, 1, 3, len(batch) - 1):
        found, losses = one_step(fused, recipe(base, loss, micro_size), batch)
        assert_equal(found, expected)
        assert losses == pytest.approx(expected_losses, rel=1e-9)


def test_the_bias_trains_with_the_sigmoid_loss_only(model, base):
    for name, loss in LOSSES.items():
        bias = fused_forward(model, recipe(base, loss)).logit_bias
        assert bias.requires_grad == (name == "sigmoid")
        assert bias.item() == (-10.0 if name == "sigmoid" else 0.0)


def test_without_next_token_prediction_long_captions_change_nothing(model, base, batch):
    loss = LossSection(ntp_weight=0.0, hard_negatives=2)
    fused = fused_forward(model, recipe(base, loss))
    expected, losses = one_step(fused, recipe(base, loss), batch)
    assert set(losses) == {"loss", "contrastive"}
    bare = type(batch)(**{**vars(batch), "long": (None,) * len(batch)})
    assert_equal(one_step(fused, recipe(base, loss, 2), bare)[0], expected)


@pytest.mark.parametrize("micro_size", [None, 2])
def test_without_short_captions_only_next_token_prediction_is_left(model, base, batch, micro_size):
    loss = LOSSES["info_nce"]
    fused = fused_forward(model, recipe(base, loss))
    bare = without_short(batch)
    found, losses = one_step(fused, recipe(base, loss, micro_size), bare)
    assert losses["contrastive"] == losses["text_text"] == 0
    assert losses["loss"] == losses["ntp"] > 0
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found["model.logit_scale"] == 0
    assert found["model.text.soft_prompt.weight"].abs().max() == 0


@pytest.mark.parametrize("micro_size", [None, 2])
def test_no_caption_of_either_kind_in_a_micro_batch(model, base, batch, micro_size):
    loss = LossSection()
    nothing = (None,) * len(batch)
    bare = type(batch)(**{**vars(without_short(batch)), "long": nothing, "hard_negatives": ((),) * len(batch)})
    found, losses = one_step(fused_forward(model, recipe(base, loss)), recipe(base, loss, micro_size), bare)
    assert losses == {"loss": 0, "contrastive": 0}  # without labeled tokens there is no ntp
    assert all(gradient.abs().max() == 0 for gradient in found.values())


def test_float32_losses_and_gradients_agree(base, batch):
    model = double_model(base).float()
    fused = fused_forward(model, recipe(base, LOSSES["info_nce"]))
    expected, expected_losses = one_step(fused, recipe(base, LOSSES["info_nce"]), batch)
    found, losses = one_step(fused, recipe(base, LOSSES["info_nce"], 2), batch)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert_equal(found, expected, 1e-4)


def test_the_order_of_images_does_not_matter(model, base, batch):
    whole = recipe(base, LOSSES["info_nce"], 2)
    fused = fused_forward(model, whole)
    expected = one_step(fused, whole, batch)[0]
    assert_equal(one_step(fused, whole, rows_of(batch, 5, 3, 1, 0, 2, 4))[0], expected)


def recorded(fused, whole, batch):
    """Run a step and return the features of each forward with whether it had a graph."""
    passes = []

    def keep(_, arguments, output):
        features = torch.cat([output.image_features, output.text_features]).detach()
        passes.append((torch.is_grad_enabled(), arguments[0].keys, features))

    hook = fused.register_forward_hook(keep)
    result = GlobalStep(fused, whole)(batch)
    hook.remove()
    return passes, result


def test_with_dropout_the_second_pass_replays_the_first(base, batch):
    """The dropout is that of the model's LoRA, not of the recipe's field."""
    whole = recipe(base, LOSSES["info_nce"], 2)
    assert whole.model.lora_dropout == 0
    fused = fused_forward(double_model(base, lora_dropout=0.3), whole)
    torch.manual_seed(0)
    passes, _ = recorded(fused, whole, batch)
    first, second = [p for p in passes if not p[0]], [p for p in passes if p[0]]
    assert len(first) == len(second) == 3
    for (_, keys, before), (_, again, after) in zip(first, second, strict=True):
        assert keys == again
        assert torch.equal(before, after)
    assert not torch.equal(recorded(fused, whole, batch)[0][0][2], first[0][2])  # dropout does draw


@pytest.mark.parametrize("visual_cache", ["cpu", "device"])
def test_the_vision_tower_sees_each_image_once(model, base, batch, visual_cache):
    whole = recipe(base, LOSSES["info_nce"], 2, visual_cache=visual_cache)
    fused = fused_forward(model, whole)
    seen = []
    hook = model.visual.backbone.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(next(iter([*args, *kwargs.values()])))), with_kwargs=True
    )
    one_step(fused, whole, batch)
    cached = list(seen)
    seen.clear()
    one_step(fused, recipe(base, LOSSES["info_nce"]), batch)
    hook.remove()
    assert len(cached) == 3 and len(seen) == 1
    assert sum(cached) == sum(seen)  # images (LLaVA) or patches (Qwen2-VL)


@pytest.mark.parametrize(
    ("settings", "autocast"),
    [
        ({"lora_dropout": 0.3}, "fp32"),
        ({"lora_dropout": 0.3}, "bf16"),
        ({"precision": "bf16"}, "bf16"),
        ({"train": "none"}, "fp32"),
        ({"train": "full"}, "fp32"),
        ({"train": "full"}, "bf16"),
    ],
)
@pytest.mark.parametrize("micro_size", [None, 2])
def test_checkpointing_changes_no_bit(base, batch, settings, autocast, micro_size):
    """Of gradients, losses and the random numbers that come next."""
    whole = recipe(base, LOSSES["info_nce"], micro_size, train=settings.get("train", "lora"), autocast=autocast)
    (expected, *rest), (found, *others) = (step_from_a_seed(base, whole, batch, settings, on) for on in (False, True))
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    assert rest[0] == others[0] and torch.equal(rest[1], others[1])


def step_from_a_seed(base, whole, batch, settings, checkpointing):
    model = moved(small_model(base, gradient_checkpointing=checkpointing, **settings))
    torch.manual_seed(1)
    return *one_step(fused_forward(model, whole), whole, batch), torch.get_rng_state()


@pytest.mark.parametrize("name", LOSSES)
def test_checkpointed_micro_batches_have_the_gradients_of_the_big_batch(model, checkpointed, base, batch, name):
    batch, whole = trimmed(batch, LOSSES[name]), recipe(base, LOSSES[name], 2)
    expected, losses = one_step(fused_forward(model, whole), recipe(base, LOSSES[name]), batch)
    found, found_losses = one_step(fused_forward(checkpointed, whole), whole, batch)
    assert_equal(found, expected)
    assert found_losses == pytest.approx(losses, rel=1e-9)


@pytest.fixture(scope="module")
def checkpointed(base):
    return double_model(base, gradient_checkpointing=True)


def test_only_the_second_pass_is_recomputed(model, checkpointed, base, batch):
    """A block runs over image rows and text rows of three micro-batches."""
    whole, calls = recipe(base, LOSSES["info_nce"], 2), {}
    for name, one in {"plain": model, "checkpointed": checkpointed}.items():
        with_graph = calls.setdefault(name, [])
        block = one.visual.backbone.trunk_module.layers[0].self_attn
        hook = block.register_forward_hook(lambda *_, calls=with_graph: calls.append(torch.is_grad_enabled()))
        one_step(fused_forward(one, whole), whole, batch)
        hook.remove()
    assert calls["plain"] == [False] * 6 + [True] * 6
    assert calls["checkpointed"] == [False] * 6 + [True] * 12


def test_counts_of_pairs_and_tokens(model, base, batch):
    whole = recipe(base, LOSSES["info_nce"])
    result = recorded(fused_forward(model, whole), whole, batch)[1]
    prompts = model.visual.prompts
    turns = sum(caption is not None for caption in batch.long) * len(prompts.second_turn)
    image_rows = len(batch) * len(prompts.image_row(model.visual.num_visual_tokens)) + turns + batch.labeled_tokens
    captions = [c for c in (*batch.short, *batch.other_short, *sum(batch.hard_negatives, ())) if c is not None]
    assert result.pairs == len(batch)
    assert result.tokens == image_rows + sum(prompts.text_length(len(caption)) for caption in captions)


def test_a_loss_that_is_not_finite_is_reported(model, base, batch):
    whole = recipe(base, LOSSES["info_nce"])
    assert recorded(fused_forward(model, whole), whole, batch)[1].finite
    broken = type(batch)(**{**vars(batch), "images": batch.images * float("nan")})
    assert not recorded(fused_forward(model, whole), whole, broken)[1].finite
    model.zero_grad(set_to_none=True)


def peak(fused, whole, batch):
    with LiveBytes() as memory:
        GlobalStep(fused, whole)(batch)
    fused.zero_grad(set_to_none=True)
    return memory.peak


def test_activations_of_one_micro_batch_exist_at_a_time(bases):
    """No graph outlives its micro-batch: eight more images only add their pixels, visual tokens and features."""
    base = bases["llava"]
    model = small_model(base)
    alike = [0] * 12  # the same captions for each image, so that all micro-batches have one size
    whole = recipe(base, LOSSES["info_nce"], 2)
    fused = fused_forward(model, whole)
    few, many = (peak(fused, whole, rows_of(batch_of(model), *alike[:count])) for count in (4, 12))
    at_once = peak(fused, recipe(base, LOSSES["info_nce"]), rows_of(batch_of(model), *alike))
    assert many - few < 1.2 * batch_of(model, 8).images.nbytes
    assert many < 0.5 * at_once
