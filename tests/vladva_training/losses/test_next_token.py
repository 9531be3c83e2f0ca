"""next_token_loss against the full cross-entropy, and that it never computes all logits at once."""

import pytest
import torch
import torch.nn.functional as F

from tests.support.training.steps import batch_of, fused_forward, recipe, small_model
from vladva_training.config import LossSection
from vladva_training.losses.next_token import next_token_loss

K, D, V = 11, 6, 40


def head_and_states(dtype=torch.float64):
    torch.manual_seed(0)
    head = torch.nn.Linear(D, V, bias=False, dtype=dtype)
    return head, torch.randn(K, D, dtype=dtype, requires_grad=True), torch.randint(0, V, (K,))


@pytest.mark.parametrize("chunk", [1, 3, K - 1, K, K + 5])
def test_value_and_gradients_are_the_full_cross_entropys(chunk):
    """Also through a trained head."""
    head, states, labels = head_and_states()
    expected = F.cross_entropy(head(states), labels, reduction="sum")
    found = next_token_loss(states, labels, head, chunk)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    inputs = [states, head.weight]
    for one, other in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, K, K + 5])
def test_a_frozen_heads_gradient_is_computed_in_the_forward(chunk):
    head, states, labels = head_and_states()
    head.requires_grad_(False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda t: t):
        found = next_token_loss(states, labels, head, chunk, frozen_head=True)
    outside = [shape for shape in kept if shape == states.shape]
    assert len(outside) == 1  # only the gradient, not all logits
    (gradient,) = torch.autograd.grad(3 * found, states)
    expected = F.cross_entropy(head(states), labels, reduction="sum")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, 3 * torch.autograd.grad(expected, states)[0], rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(next_token_loss(states, labels, head, chunk, frozen_head=True), expected)


def test_half_precision_logits_are_summed_in_float32():
    head, states, labels = head_and_states(torch.bfloat16)
    assert next_token_loss(states, labels, head).dtype == torch.float32


def test_uneven_labels_are_refused():
    head, states, labels = head_and_states()
    with pytest.raises(ValueError, match="11 hidden states for 10 labels"):
        next_token_loss(states, labels[1:], head)


def test_logits_of_one_chunk_exist_at_a_time():
    head, states, labels = head_and_states()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda t: t):
        next_token_loss(states, labels, head, 3)
    assert not any(V in shape for shape in kept if shape != head.weight.shape)


@pytest.mark.parametrize("chunk", [5, 10_000])
def test_the_head_sees_labeled_positions_only(base, chunk):
    """No tensor of all positions times the vocabulary is made, forward or backward."""
    model = small_model(base)
    batch, head = batch_of(model), model.visual.backbone.lvlm.get_output_embeddings()
    vocabulary, seen, kept = head.weight.shape[0], [], []
    whole = recipe(base, LossSection(ntp_chunk=chunk, hard_negatives=2))
    fused = fused_forward(model, whole)
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel() // args[0].shape[-1]))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output = fused(batch, fused.visual_tokens(batch.images))
    hook.remove()
    assert sum(seen) == batch.labeled_tokens
    assert max(seen) <= chunk
    rows = [tensor.numel() // vocabulary for tensor in kept if tensor.shape[-1:] == (vocabulary,)]
    assert all(count <= batch.labeled_tokens for count in rows)
    assert output.ntp_sum.isfinite()
