"""Which optimizer takes which parameter, and that both take their steps and keep their state."""

import copy

import pytest
import torch

from vladva_training.tiny.model import build_model
from vladva_training.tiny.optimizers import Optimizers

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL["num_key_value_heads"] = 2


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return build_model(tokenizer, **SMALL)


def names_of(model, groups):
    chosen = {id(one) for group in groups for one in group["params"]}
    return {name for name, one in model.named_parameters() if id(one) in chosen}


def test_muon_takes_the_matrices_between_layers(model):
    adam, muon = Optimizers([(list(model.named_parameters()), 1.0)], 0.1, muon=True).all
    hidden = names_of(model, muon.param_groups)
    assert {"model.language_model.layers.0.mlp.up_proj.weight", "model.multi_modal_projector.linear_1.weight"} <= hidden
    plain = names_of(model, adam.param_groups)
    assert {"lm_head.weight", "model.language_model.embed_tokens.weight"} <= plain
    assert all("embed" not in name and "head" not in name for name in hidden)
    assert hidden.isdisjoint(plain) and len(hidden | plain) == len(list(model.parameters()))


def test_only_matrices_decay(model):
    for muon in (True, False):
        for group in Optimizers([(list(model.named_parameters()), 1.0)], 0.1, muon).groups:
            assert all((one.ndim >= 2) == (group["weight_decay"] == 0.1) for one in group["params"])


def test_a_step_moves_every_group_at_its_rate(model):
    vision = [one for one in model.named_parameters() if "vision_tower" in one[0]]
    rest = [one for one in model.named_parameters() if "vision_tower" not in one[0]]
    optimizer = Optimizers([(rest, 1.0), (vision, 0.0)], 0.0, muon=True)
    before = copy.deepcopy(model.state_dict())
    for one in model.parameters():
        one.grad = torch.randn_like(one)
    optimizer.step(1e-2, 1.0)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, _ in rest}
    assert all(one.grad is None for one in model.parameters())


def test_a_restored_optimizer_goes_on_as_the_first(model):
    twin = copy.deepcopy(model)
    first, second = (Optimizers([(list(one.named_parameters()), 1.0)], 0.1, muon=True) for one in (model, twin))
    for step in range(3):
        torch.manual_seed(step)
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        first.step(1e-2, 1.0)
        if step == 1:
            twin.load_state_dict(model.state_dict())
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        if step == 2:
            second.step(1e-2, 1.0)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))
