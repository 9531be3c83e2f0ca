"""The optimizers of pre-training: Muon for the matrices between layers, AdamW for everything else."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

Named = tuple[str, nn.Parameter]
ADAM_BETAS = (0.9, 0.95)
MUON_RATE = 3.0
"""The factor on Muon's updates, which torch scales to the size of AdamW's: from scratch, larger ones learn faster
(docs/miniature.md)."""


class Optimizers:
    """Several optimizers as one; each parameter group has its `rate`, the share of the run's learning rate.

    Args:
        groups: parameters and their rate. Matrices decay, vectors (norms and biases) don't.
        weight_decay: of matrices.
        muon: whether Muon takes the matrices that map one hidden state to another. Its updates are scaled to
            `MUON_RATE` times AdamW's: one learning rate serves both.
    """

    def __init__(
        self, groups: Iterable[tuple[Iterable[tuple[str, nn.Parameter]], float]], weight_decay: float, muon: bool
    ):
        adam, matrices = [], []
        for named, rate in groups:
            hidden, plain, vectors = _sorted(named, muon)
            matrices += [{"params": hidden, "rate": MUON_RATE * rate}] if hidden else []
            adam += [{"params": plain, "weight_decay": weight_decay, "rate": rate}] if plain else []
            adam += [{"params": vectors, "weight_decay": 0.0, "rate": rate}] if vectors else []
        self.all = [torch.optim.AdamW(adam, betas=ADAM_BETAS)]
        if matrices:
            self.all.append(torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))

    @property
    def groups(self) -> list[dict]:
        """The parameter groups of all optimizers."""
        return [group for one in self.all for group in one.param_groups]

    def step(self, learning_rate: float, max_grad_norm: float) -> None:
        """Clip the gradients, change the parameters, and drop the gradients."""
        for group in self.groups:
            group["lr"] = learning_rate * group["rate"]
        nn.utils.clip_grad_norm_([one for group in self.groups for one in group["params"]], max_grad_norm)
        for one in self.all:
            one.step()
            one.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The states of all optimizers."""
        return {str(index): one.state_dict() for index, one in enumerate(self.all)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for index, one in enumerate(self.all):
            one.load_state_dict(state[str(index)])


_NOT_HIDDEN = ("embed", "lm_head", "heads")


def _sorted(named: Iterable[tuple[str, nn.Parameter]], muon: bool) -> tuple[list, list, list]:
    """Parameters for Muon, matrices for AdamW, and vectors for AdamW."""
    hidden, plain, vectors = [], [], []
    for name, one in named:
        is_hidden = muon and one.ndim == 2 and not any(word in name for word in _NOT_HIDDEN)
        (hidden if is_hidden else plain if one.ndim >= 2 else vectors).append(one)
    return hidden, plain, vectors
