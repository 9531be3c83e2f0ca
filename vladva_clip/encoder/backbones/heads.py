"""The place of a language-model head in a base that has none."""

import torch
from torch import nn

MISSING = (
    "this base was published without its language-model head, so it can't generate or predict tokens: use it as an "
    "encoder only (training needs loss.ntp_weight=0), or load the LVLM it was made from to write captions"
)


class NoHead(nn.Module):
    """Stands where the head would be, and refuses to be used."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Raise ValueError."""
        raise ValueError(MISSING)


def take_away(lvlm: nn.Module) -> None:
    """Replace the head of transformers' `...ForConditionalGeneration`, in place."""
    lvlm.set_output_embeddings(NoHead())


def is_there(lvlm: nn.Module) -> bool:
    """Whether a model has a head."""
    return not isinstance(lvlm.get_output_embeddings(), NoHead)


def is_tied(lvlm: nn.Module) -> bool:
    """Whether a model's head and its token embedding are one tensor."""
    return is_there(lvlm) and lvlm.get_output_embeddings().weight is lvlm.get_input_embeddings().weight
