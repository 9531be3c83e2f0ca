"""Finds what a trunk saves for its backward pass by running its first layers on tensors without content."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from vladva_clip.encoder.backbones.base import Backbone

Shape = tuple[int, int]  # rows, and tokens in each


def saved_by_layers(backbone: Backbone, layers: int, shapes: list[Shape], autocast: bool) -> int:
    """Count the bytes that the trunk's first layers save in a forward pass over rows of each shape in turn.

    Each storage counts once; parameters don't count. Autocast's copies of weights count as it makes them: one of a
    weight that trains, which it keeps, and one for each use of a frozen weight.

    Args:
        backbone: on the meta device, with trainable parameters marked; unchanged.
        layers: number of layers, from the first.
        shapes: of the rows.
        autocast: products in bfloat16.
    """
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    trunk = backbone.trunk_module
    with _cut(trunk, layers), FakeTensorMode():
        weights = _fake(trunk)
        own = {tensor.untyped_storage()._cdata for tensor in weights.values()}
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            outputs = [functional_call(trunk, weights, kwargs=_inputs(backbone, *shape)) for shape in shapes]
        assert all(output.last_hidden_state.requires_grad for output in outputs)
        return sum(storage.nbytes() for key, storage in saved.items() if key not in own)


@contextmanager
def _cut(trunk: nn.Module, layers: int) -> Iterator[None]:
    """Reduce a trunk to its first layers within this block."""
    whole = trunk.layers
    trunk.layers = nn.ModuleList(whole[:layers])
    try:
        yield
    finally:
        trunk.layers = whole


def _inputs(backbone: Backbone, rows: int, length: int) -> dict:
    positions = backbone.position_ids(length, None, 0).shape
    return {
        "inputs_embeds": torch.empty(rows, length, backbone.hidden_dim, dtype=backbone.dtype, requires_grad=True),
        "position_ids": torch.empty((*positions[:-2], rows, length), dtype=torch.long),
        "use_cache": False,
    }


def _fake(module: nn.Module) -> dict[str, torch.Tensor]:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", requires_grad=tensor.requires_grad)
        for name, tensor in tensors.items()
    }
