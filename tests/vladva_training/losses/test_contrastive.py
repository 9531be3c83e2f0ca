"""The contrastive losses against open_clip's, against written-out formulas and in closed form."""

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss

from tests.support.training import formula
from vladva_training.losses.contrastive import hardness_weighted_info_nce, info_nce, sigmoid_loss

B, D, K = 6, 8, 3
SCALE, BIAS = torch.tensor(2.3, dtype=torch.float64), torch.tensor(-4.0, dtype=torch.float64)
HARDNESS = 3.0


def features(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, D, generator=generator, dtype=torch.float64), dim=-1)


def leaves():
    """Images, texts, logit scale, logit bias, hard negatives: fresh, all requiring gradients."""
    tensors = features(B), features(B, seed=1), SCALE.clone(), BIAS.clone(), features(B, K, seed=2)
    return [tensor.requires_grad_() for tensor in tensors]


def gradients(loss, tensors):
    return torch.autograd.grad(loss, tensors, allow_unused=True)


def assert_same(found, expected, tensors):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    for one, other in zip(gradients(found, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


OURS = {
    "info_nce": lambda i, t, s, b, **options: info_nce(i, t, s, **options),
    "sigmoid": lambda i, t, s, b, **options: sigmoid_loss(i, t, s, b, **options),
    "hardness": lambda i, t, s, b, **options: hardness_weighted_info_nce(i, t, s, HARDNESS, **options),
}


def test_info_nce_is_twice_open_clips():
    """The paper's equation 1 sums both directions; open_clip takes their mean."""
    i, t, s, *_ = leaves()
    assert_same(info_nce(i, t, s), 2 * ClipLoss()(i, t, s.exp()), [i, t, s])


def test_the_sigmoid_loss_is_open_clips():
    i, t, s, b, _ = leaves()
    assert_same(sigmoid_loss(i, t, s, b), SigLipLoss()(i, t, s.exp(), b), [i, t, s, b])


def test_hardness_zero_is_info_nce():
    i, t, s, *_ = leaves()
    assert_same(hardness_weighted_info_nce(i, t, s, 0.0), info_nce(i, t, s), [i, t, s])


def test_hardness_weights_negatives_by_the_exponential_of_their_cosine():
    """LLaVE's equation: exp(s cos_ii) / (exp(s cos_ii) + sum of w_ij exp(s cos_ij)), w_ij = exp(alpha cos_ij), no
    gradient through w."""
    i, t, s, *_ = leaves()
    cosines = i @ t.T
    weights = (HARDNESS * cosines.detach()).exp()
    weights = weights.fill_diagonal_(1.0)
    odds = weights * (s.exp() * cosines).exp()
    expected = -(odds.diagonal() / odds.sum(1)).log().mean() - (odds.diagonal() / odds.sum(0)).log().mean()
    assert_same(hardness_weighted_info_nce(i, t, s, HARDNESS), expected, [i, t, s])


@pytest.mark.parametrize("loss", ["info_nce", "hardness"])
def test_features_of_zero_give_log_b_in_each_direction(loss):
    zero, expected = torch.zeros(B, D, dtype=torch.float64), torch.tensor(2 * math.log(B), dtype=torch.float64)
    torch.testing.assert_close(OURS[loss](zero, zero, SCALE, BIAS), expected)


def test_features_of_zero_give_the_bias_alone():
    zero, none = torch.zeros(B, D, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(
        sigmoid_loss(zero, zero, SCALE, none), torch.tensor(B * math.log(2), dtype=torch.float64)
    )


def options_of(hard):
    valid = torch.tensor([True, True, False, True, True, False])
    same = torch.eye(B, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    same[2, 5] = same[5, 2] = True
    same[1, 4] = True  # one direction: text 4 matches image 1
    hard_valid = torch.tensor([[row > 0, row > 1, row > 4] for row in range(B)])
    return {"valid": valid, "same": same} | (
        {"hard_negatives": hard, "hard_valid": hard_valid} if hard is not None else {}
    )


@pytest.mark.parametrize("with_hard", [False, True])
@pytest.mark.parametrize("loss", OURS)
def test_masks_and_hard_negatives_against_the_formula(loss, with_hard):
    i, t, s, b, hard = leaves()
    options = options_of(hard if with_hard else None)
    expected = formula.contrastive(loss, i, t, s, b, hardness=HARDNESS, **options)
    used = [i, t, s, *([b] if loss == "sigmoid" else []), *([hard] if with_hard else [])]
    assert_same(OURS[loss](i, t, s, b, **options), expected, used)


@pytest.mark.parametrize("loss", OURS)
def test_rows_without_a_partner_neither_count_nor_get_gradients(loss):
    i, t, s, b, hard = leaves()
    options = options_of(hard)
    valid = options["valid"]
    value = OURS[loss](i, t, s, b, **options)
    found = gradients(value, [i, t, hard])
    assert all(gradient[~valid].abs().max() == 0 and gradient.isfinite().all() for gradient in found)
    kept = {name: option[valid] for name, option in options.items()} | {"same": options["same"][valid][:, valid]}
    torch.testing.assert_close(value, OURS[loss](i[valid], t[valid], s, b, **kept), rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", OURS)
def test_no_row_with_a_partner_gives_zero_and_no_nan(loss):
    i, t, s, b, hard = leaves()
    options = options_of(hard) | {"valid": torch.zeros(B, dtype=torch.bool)}
    value = OURS[loss](i, t, s, b, **options)
    assert value == 0
    assert all(g is None or (g == 0).all() for g in gradients(value, [i, t, s, b, hard]))


@pytest.mark.parametrize("loss", OURS)
def test_a_single_row_has_no_negatives(loss):
    i, t, s, b, _ = leaves()
    value = OURS[loss](i[:1], t[:1], s, b)
    assert value.isfinite()
    assert loss == "sigmoid" or value == 0


@pytest.mark.parametrize("loss", ["info_nce", "hardness"])
def test_all_captions_the_same_leaves_no_negative(loss):
    i, t, s, b, _ = leaves()
    value = OURS[loss](i, t, s, b, same=torch.ones(B, B, dtype=torch.bool))
    assert value == 0
    assert all((g == 0).all() for g in gradients(value, [i, t, s]))


@pytest.mark.parametrize("loss", OURS)
def test_at_the_largest_scale_float32_stays_finite(loss):
    i, t, *_ = (tensor.detach().float().requires_grad_() for tensor in leaves())
    scale = torch.tensor(math.log(100.0), requires_grad=True)
    value = OURS[loss](i, -i.detach(), scale, torch.tensor(-10.0))
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients(value, [i, scale]))
