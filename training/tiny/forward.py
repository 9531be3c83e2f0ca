"""From a batch of task rows to the losses of its targets, for pre-training and measuring the base of vladva-tiny."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from vladva_training.tiny.batches import TASK_NAMES, TaskBatch

TASK_WEIGHTS = {"one_word": 10.0, "question": 2.0}
"""Weight of a target by task, 1 by default. A one-word answer is one of a row's hundred targets, and the only one from
which the summary position learns."""


class SummaryReader(nn.Module):
    """Makes of the summary token's last state the one token that the tasks behind it see.

    What an encoder hands out is that state. Without such tasks it would hold the words of a scene, but not which is
    where: that lies in the inner layers, where attention finds it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(b, D) last states as (b, 1, D) visual tokens."""
        return self.project(states)[:, None]


def target_losses(
    model: LlavaForConditionalGeneration, batch: TaskBatch, visual: torch.Tensor | None = None
) -> torch.Tensor:
    """Next-token loss (K,) of each target, without those behind the summary token."""
    return _losses(model, batch, hidden_states(model, batch, visual))


def all_losses(
    model: LlavaForConditionalGeneration, reader: SummaryReader, batch: TaskBatch, states: torch.Tensor
) -> Iterator[tuple[TaskBatch, torch.Tensor]]:
    """Yield a batch and the loss (K,) of each of its targets, then the same for what is behind its summary token.

    `states` are the batch's own (`hidden_states`).
    """
    yield batch, _losses(model, batch, states)
    if batch.behind is not None:
        rows = batch.behind_rows
        yield batch.behind, target_losses(model, batch.behind, reader(states[rows, batch.summary[rows]]))


def _losses(model: LlavaForConditionalGeneration, batch: TaskBatch, states: torch.Tensor) -> torch.Tensor:
    """Logits are computed at targets only."""
    row, column, token, _ = batch.targets
    return functional.cross_entropy(model.lm_head(states[row, column]).float(), token, reduction="none")


def summary_states(batch: TaskBatch, states: torch.Tensor) -> torch.Tensor:
    """(B, D) the state of each row's last prefix token."""
    return states[torch.arange(len(states)), batch.summary]


def target_weights(batch: TaskBatch) -> torch.Tensor:
    """The weight (K,) of each target in the loss."""
    by_task = torch.tensor([TASK_WEIGHTS.get(name, 1.0) for name in TASK_NAMES])
    return batch.weights * by_task[batch.targets[3]]


def task_means(batch: TaskBatch, losses: torch.Tensor) -> Iterator[tuple[str, float]]:
    """Yields (task and modality, mean loss per answered token)."""
    for index in batch.targets[3].unique().tolist():
        weights = batch.weights * (batch.targets[3] == index)
        yield f"{TASK_NAMES[index]}/{batch.modality}", ((losses * weights).sum() / weights.sum()).item()


def visual_tokens(model: LlavaForConditionalGeneration, batch: TaskBatch) -> torch.Tensor | None:
    """The projector's output (B, N, D) for the images of a batch, None for text rows."""
    if batch.pixel_values is None:
        return None
    return torch.stack(list(model.get_image_features(batch.pixel_values).pooler_output))


def hidden_states(
    model: LlavaForConditionalGeneration, batch: TaskBatch, visual: torch.Tensor | None = None
) -> torch.Tensor:
    """The LLM's last hidden states (B, T, D) for a batch, visual tokens (computed if None) in their slots."""
    embeddings = model.get_input_embeddings()(batch.input_ids)
    if batch.visual_start is not None:
        visual = visual_tokens(model, batch) if visual is None else visual
        slots = batch.visual_start[:, None] + torch.arange(visual.shape[1])  # (B, N)
        rows = torch.arange(len(slots))[:, None].expand_as(slots)
        embeddings = embeddings.index_put((rows, slots), visual.to(embeddings.dtype))
    return model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
