"""What the base of vladva-tiny has learned so far, on a few scenes of the split "validation"."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from transformers import LlavaForConditionalGeneration

from vladva_clip.scenes import BACKGROUNDS, COUNTS, RELATIONS, SIZES, Scene, family_size, holds, scene
from vladva_training.tiny.batches import Batcher, TaskBatch
from vladva_training.tiny.forward import SummaryReader, all_losses, hidden_states, target_losses, task_means
from vladva_training.tiny.questions import relation_prompt, statements
from vladva_training.tiny.tasks import DESCRIBE_SHORT, Row, Task

CHOICES = {"sizes": tuple(SIZES), "counts": tuple(COUNTS.values()), "backgrounds": BACKGROUNDS}
"""Words between which an image decides wherever one of them stands in a caption."""


class Validation:
    """The same rows and scenes every time.

    Args:
        batcher: of the split "validation".
        size: image rows, as many text rows, and scenes whose relations are asked.
    """

    def __init__(self, batcher: Batcher, size: int = 96) -> None:
        self.batcher, self.size = batcher, size

    @cached_property
    def _batches(self) -> tuple[TaskBatch, TaskBatch]:
        return self.batcher.batch("image", 0, self.size), self.batcher.batch("text", 0, self.size)

    @cached_property
    def _asked(self) -> list[Scene]:
        """One scene of each family, and not always the same member: the members of a family have much in common."""
        split, style, stride = self.batcher.split, self.batcher.style, family_size(self.batcher.style) + 1
        drawn = (scene(split, number * stride, style) for number in range(2 * self.size))
        return [one for one in drawn if len(one.objects) > 1][: self.size]

    @torch.no_grad()
    def figures(self, model: LlavaForConditionalGeneration, reader: SummaryReader) -> dict[str, float]:
        """`loss` (the mean over all tasks), the loss of each task, and shares of right choices."""
        states = [(batch, hidden_states(model, batch)) for batch in self._batches]
        losses = [one for batch, own in states for one in all_losses(model, reader, batch, own)]
        found = {name: value for one in losses for name, value in task_means(*one)}
        return {
            "loss": sum(found.values()) / len(found),
            **found,
            **word_accuracy(model, self.batcher, self._batches[0]),
            "relations in captions": caption_accuracy(model, self.batcher, self._asked),
            "relations in answers": answer_accuracy(model, self.batcher, self._asked),
        }


@torch.no_grad()
def word_accuracy(model: LlavaForConditionalGeneration, batcher: Batcher, batch: TaskBatch) -> dict[str, float]:
    """How often the right one of `CHOICES` is likelier than the others where one of them stands in a caption."""
    row, column, token, task = batch.targets
    logits = model.lm_head(hidden_states(model, batch)[row, column])
    shares = {}
    for name, words in CHOICES.items():
        ids = torch.tensor([batcher.word_id(word) for word in words])
        chosen = torch.isin(token, ids) & (task > 0)  # 0 is the one-word answer: any word of the scene is right
        shares[name] = (ids[logits[chosen][:, ids].argmax(-1)] == token[chosen]).float().mean().item()
    return shares


@torch.no_grad()
def caption_accuracy(model: LlavaForConditionalGeneration, batcher: Batcher, drawn: Sequence[Scene]) -> float:
    """How often the likeliest of four captions that differ in their relation alone is true."""
    asked = [statements(scene) for scene in drawn]
    rows = [
        Row(scene, None, (Task("image_short", DESCRIBE_SHORT, tuple(one.render() for one in told)),))
        for scene, told in zip(drawn, asked, strict=True)
    ]
    losses = _answer_losses(model, batcher.collate(rows), num_answers=4)
    chosen = [told[index].relation for told, index in zip(asked, losses.argmin(dim=1).tolist(), strict=True)]
    return _share_that_hold(drawn, chosen)


def _answer_losses(model: LlavaForConditionalGeneration, batch: TaskBatch, num_answers: int) -> torch.Tensor:
    """The loss of each answer of each row's only task (B, answers), but for the first token, which all share."""
    row, column, _, _ = batch.targets
    answer = batch.answers[row, column]  # 0 where the first token is predicted
    found = torch.zeros(len(batch.input_ids), num_answers + 1)
    found.index_put_((row, answer), target_losses(model, batch), accumulate=True)
    return found[:, 1:]


@torch.no_grad()
def answer_accuracy(model: LlavaForConditionalGeneration, batcher: Batcher, drawn: Sequence[Scene]) -> float:
    """How often the likeliest of the four relation words answers the question for a relation."""
    told = [statements(scene)[0] for scene in drawn]
    rows = [
        Row(scene, None, (Task("question", relation_prompt(one), (one.relation,)),))
        for scene, one in zip(drawn, told, strict=True)
    ]
    batch = batcher.collate(rows)
    first = {row: index for index, row in reversed(list(enumerate(batch.targets[0].tolist())))}
    row, column, _, _ = batch.targets[:, list(first.values())]
    logits = model.lm_head(hidden_states(model, batch)[row, column])[row.argsort()]
    words = list(RELATIONS)
    ids = torch.tensor([batcher.word_id(word.split()[0]) for word in words])
    return _share_that_hold(drawn, [words[index] for index in logits[:, ids].argmax(-1).tolist()])


def _share_that_hold(drawn: Iterable[Scene], relations: Iterable[str]) -> float:
    right = [holds(relation, *scene.objects[:2]) for scene, relation in zip(drawn, relations, strict=True)]
    return sum(right) / len(right)
