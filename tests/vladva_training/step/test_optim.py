"""Parameter groups, and the formulas of the schedule and of the average."""

import math

import pytest
import torch
from torch import nn

from tests.support.training.steps import fused_forward, recipe, section, small_model
from vladva_training.config import LossSection, OptimSection
from vladva_training.step.optim import EMA, build_optimizer, build_schedule, trainable
from vladva_training.step.trainable import load_trainable

SECTION = OptimSection(learning_rate=1e-2, soft_prompt_rate=5.0, weight_decay=0.1, beta2=0.95)


def names_of(module, group):
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


@pytest.mark.parametrize("train", ["lora", "full", "none"])
def test_only_matrices_decay_and_each_trained_parameter_is_in_one_group(base, train):
    model, _ = load_trainable(section(base, train=train))
    fused = fused_forward(model, recipe(base, LossSection(contrastive="sigmoid")))
    optimizer = build_optimizer(fused, SECTION)
    grouped = [names_of(fused, group) for group in optimizer.param_groups]
    assert set.union(*grouped) == set(trainable(fused))
    assert sum(map(len, grouped)) == len(trainable(fused))
    for group, names in zip(optimizer.param_groups, grouped, strict=True):
        assert group["betas"] == (0.9, 0.95)
        soft = any("soft_prompt" in name for name in names)
        assert group["lr"] == pytest.approx(5e-2 if soft else 1e-2)
        free = {name.removeprefix("model.") for name in names} <= model.no_weight_decay() | {"logit_bias"}
        assert group["weight_decay"] == (0.0 if free else 0.1)
        assert all(("soft_prompt" in name) == soft for name in names)


def rates(steps, **settings):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(optimizer, OptimSection(**settings), steps)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_schedule_warms_up_linearly_and_falls_along_a_cosine():
    found = rates(100, warmup_share=0.1, final_share=0.2)
    assert found[:10] == pytest.approx([2 * (step + 1) / 10 for step in range(10)])
    for step in (10, 37, 55, 99, 100):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 10) / 90))
        assert found[step] == pytest.approx(2 * (0.2 + 0.8 * cosine))
    assert found[10] == pytest.approx(2.0) and found[55] == pytest.approx(1.2) and found[100] == pytest.approx(0.4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_schedule_with_no_or_only_warmup(share):
    found = rates(5, warmup_share=share)
    assert all(0 <= rate <= 2 for rate in found)
    assert found[4 if share else 0] == pytest.approx(2.0)


def test_each_group_keeps_its_own_rate_along_the_schedule(bases):
    fused = fused_forward(small_model(bases["llava"]), recipe(bases["llava"], LossSection()))
    optimizer = build_optimizer(fused, SECTION)
    schedule = build_schedule(optimizer, SECTION, 10)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    rates = {group["lr"] for group in optimizer.param_groups}
    assert max(rates) / min(rates) == pytest.approx(5.0)


def module_of(value=0.0):
    module = nn.Linear(2, 1, bias=False)
    frozen = nn.Linear(1, 1).requires_grad_(False)
    nn.init.constant_(module.weight, value)
    return nn.ModuleList([module, frozen])


def move(module, value):
    with torch.no_grad():
        module[0].weight.fill_(value)


def test_the_average_follows_its_formula():
    module, expected = module_of(), 0.0
    average = EMA(module, 0.5)
    for update, value in enumerate((1.0, 2.0, -3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0), start=1):
        move(module, value)
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
        torch.testing.assert_close(average.averages["0.weight"], torch.full((1, 2), expected))
    assert set(average.averages) == {"0.weight"}


def test_swapping_restores_every_bit_even_after_an_error():
    module = module_of()
    average = EMA(module, 0.9)
    nn.init.normal_(module[0].weight)
    own = module[0].weight.detach().clone()
    with average.swapped():
        assert torch.equal(module[0].weight, average.averages["0.weight"])
    assert torch.equal(module[0].weight, own)
    with pytest.raises(KeyError), average.swapped():
        raise KeyError
    assert torch.equal(module[0].weight, own)


def test_the_average_is_stored_and_loaded():
    module = module_of()
    average = EMA(module, 0.9)
    for value in (1.0, 2.0):
        move(module, value)
        average.update()
    state = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    again = EMA(module_of(5.0), 0.9)
    again.load_state_dict(state)
    assert again.updates == 2
    assert torch.equal(again.averages["0.weight"], average.averages["0.weight"])


def test_another_models_average_is_refused():
    average = EMA(module_of(), 0.9)
    with pytest.raises(ValueError, match="average has 2 tensors.* 1"):
        average.load_state_dict({"0.weight": torch.zeros(1, 2), "x": torch.zeros(1), "updates": torch.tensor(1)})
    with pytest.raises(ValueError, match=r"0\.weight.*\(1,\).*\(1, 2\)"):
        average.load_state_dict({"0.weight": torch.zeros(1), "updates": torch.tensor(1)})
