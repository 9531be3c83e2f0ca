"""The recipe `debug` against the loss that the first release was trained with, in real steps.

That loss had the mean of both directions where today's has their sum. Twice of all the rest is the same training.
"""

from dataclasses import replace

import pytest
import torch

from tests.support.training.steps import assert_equal, batch_of, double_model, fused_forward, one_step, recipe
from vladva_training import recipes
from vladva_training.losses import CONTRASTIVE, Contrastive
from vladva_training.losses.contrastive import info_nce
from vladva_training.step.grad_cache import GlobalStep
from vladva_training.step.optim import build_optimizer, trainable

MEAN = "mean_of_both_directions"
NORMS = {"debug": 7}  # the tiny base's gradients are larger; times this, the norm clips some steps


def mean_of_both_directions(*arguments, **options):
    """The contrastive loss as it was."""
    return info_nce(*arguments, **options) / 2


@pytest.fixture
def trained_with(monkeypatch):
    """A recipe -> the loss, weight and clipping norm that its steps would have had: half of today's."""
    monkeypatch.setitem(CONTRASTIVE, MEAN, Contrastive(f"{__name__}:{MEAN}"))

    def old(today):
        loss = replace(today.loss, contrastive=MEAN, ntp_weight=today.loss.ntp_weight / 2)
        return replace(today, loss=loss, optim=replace(today.optim, max_grad_norm=today.optim.max_grad_norm / 2))

    return old


def small(bases, whole, micro_size=2):
    """The recipe's loss and optimizer on a tiny base and six images."""
    return replace(recipe(bases["llava"], whole.loss, micro_size), optim=whole.optim)


def batch_for(model, whole, seed=0):
    batch = batch_of(model, seed=seed)
    return batch if whole.loss.hard_negatives else replace(batch, hard_negatives=((),) * len(batch))


@pytest.mark.parametrize("name", ["debug"])
def test_loss_and_gradients_are_exactly_twice_what_they_were(bases, trained_with, name):
    today = recipes.get(name)
    model = double_model(bases["llava"])
    found, losses = one_step(fused_forward(model, small(bases, today)), small(bases, today), batch_for(model, today))
    old = small(bases, trained_with(today))
    expected, expected_losses = one_step(fused_forward(model, old), old, batch_for(model, today))
    assert losses["loss"] == 2 * expected_losses["loss"]
    assert all(torch.equal(found[name], 2 * gradient) for name, gradient in expected.items())


def moved_by_steps(bases, whole, norm):
    """Take real steps, some of them clipped; return how far each parameter moved."""
    model = double_model(bases["llava"])
    fused = fused_forward(model, whole)
    start = {name: parameter.detach().clone() for name, parameter in trainable(fused).items()}
    optimizer, clipped = build_optimizer(fused, whole.optim), set()
    for seed in range(8):
        optimizer.zero_grad()
        GlobalStep(fused, whole)(batch_for(model, whole, seed))
        limit = norm * whole.optim.max_grad_norm
        clipped.add(bool(torch.nn.utils.clip_grad_norm_(trainable(fused).values(), limit) > limit))
        optimizer.step()
    assert clipped == {True, False}
    return {name: parameter.detach() - start[name] for name, parameter in trainable(fused).items()}


@pytest.mark.parametrize("name", ["debug"])
def test_steps_move_the_parameters_as_they_did(bases, trained_with, name):
    """Up to the epsilon in AdamW's denominator, which a factor does not scale."""
    today = small(bases, recipes.get(name))
    found, expected = (moved_by_steps(bases, one, NORMS[name]) for one in (today, trained_with(today)))
    assert_equal(found, expected, relative=2e-3)
