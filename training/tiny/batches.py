"""Turns rows of tasks into tensors: tasks side by side behind one prefix, and the targets of the loss."""

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from vladva_clip.encoder.prompts import Prompts
from vladva_clip.encoder.templates import caption_ids
from vladva_clip.scenes import facts, scene, stable_seed
from vladva_training.tiny.bindings import labels
from vladva_training.tiny.model import IMAGE_SIZE, PATCH_SIZE, TEMPLATES, VISUAL_SPAN
from vladva_training.tiny.pixels import draw_pixels
from vladva_training.tiny.recognition import patch_labels
from vladva_training.tiny.tasks import Row, Task, caption_row, image_row, text_row
from vladva_training.tiny.words import ENDING, target_weights, told_by

PADDING = -1
TASK_NAMES = (
    "one_word",
    "image_long",
    "image_short",
    "image_pairs",
    "text_text",
    "text_long",
    "text_short",
    "question",
    "image_summary",
    "text_summary",
)


@dataclass(frozen=True)
class TaskBatch:
    """Rows as tensors.

    Attributes:
        input_ids: (B, T).
        position_ids: (B, T); a prompt continues the positions of its prefix, an answer those of its prompt.
        tasks: (B, T); 0 the prefix, 1 and up the tasks, -1 padding.
        answers: (B, T); 0 the prefix and the tasks' prompts, 1 and up a task's answers.
        pixel_values: (B, 3, H, W) for image rows, None for text rows.
        visual_start: (B,) index of the first visual slot, for image rows.
        modality: "image" or "text", of the rows' prefixes.
        summary: (B,) index of the summary token, the last one of the prefix.
        labels: (B, heads, patches) what each patch shows (`recognition.patch_labels`), for image rows.
        behind: the tasks that see of their prefix the summary token's last state alone, in its one visual slot; None if
            there are none.
        behind_rows: (b,) which rows these belong to.
        bound: (3, N) row, class and truth of the bindings that a summary token is asked (`bindings.labels`).
        targets: (4, K) row, column, token id and task (index in TASK_NAMES) of what follows a position.
        weights: (K,) weight of each target.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    tasks: torch.Tensor
    answers: torch.Tensor
    pixel_values: torch.Tensor | None
    visual_start: torch.Tensor | None
    targets: torch.Tensor
    weights: torch.Tensor
    modality: str
    summary: torch.Tensor
    labels: torch.Tensor | None = None
    behind: "TaskBatch | None" = None
    behind_rows: torch.Tensor | None = None
    bound: torch.Tensor | None = None

    @property
    def visible(self) -> torch.Tensor:
        """(B, T, T), whether a position sees another: one before it, in its prefix, its prompt or its own answer."""
        same_task = self.tasks[:, :, None] == self.tasks[:, None, :]
        same_answer = self.answers[:, :, None] == self.answers[:, None, :]
        prefix, prompt = (self.tasks == 0)[:, None, :], (self.answers == 0)[:, None, :]
        length = self.tasks.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        return causal & (prefix | (same_task & (prompt | same_answer)))

    @property
    def attention_mask(self) -> torch.Tensor:
        """(B, 1, T, T), 0 where a position may look, -inf elsewhere.

        Added to the attention's scores: transformers' eager attention would add a boolean mask as well, as 0 and 1.
        """
        visible = self.visible
        return torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))[:, None]


class Piece(NamedTuple):
    """A run of a row's tokens: `start` is its first position, `task` and `answer` as in `TaskBatch`."""

    ids: tuple[int, ...]
    start: int
    task: int
    answer: int


class Target(NamedTuple):
    """What follows a column of a row: a token of a task, and its weight."""

    column: int
    token: int
    task: int
    weight: float


class Batcher:
    """Makes batches of training rows; batch `step` is a pure function of the seed and the step."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, split: str = "train", seed: int = 0, style: str = "classic"):
        self.tokenizer, self.split, self.seed, self.style = tokenizer, split, seed, style
        self.prompts = Prompts.build(tokenizer, TEMPLATES, VISUAL_SPAN, starts_with_bos=True)
        self._ids = lru_cache(maxsize=10_000)(self._tokenize)
        self._words = [word.strip().lower() for word in tokenizer.batch_decode([[i] for i in range(len(tokenizer))])]

    def batches(self, kind: str, step: int, size: int, parts: int = 2) -> list[TaskBatch]:
        """`size` rows of a kind, "image", "text" or "caption", those of similar length together."""
        rows = sorted(self._rows(kind, step, size), key=self._length)
        each = -(-size // parts)
        return [self.collate(rows[start : start + each]) for start in range(0, size, each)]

    def batch(self, kind: str, step: int, size: int) -> TaskBatch:
        """`size` rows of a kind, "image" or "text"."""
        return self.collate(self._rows(kind, step, size))

    def _length(self, row: Row) -> int:
        return sum(len(piece.ids) for piece in self._encode(row)[0])

    def image_prompt_ids(self, prompt: str, form: str = "chat") -> list[int]:
        """The whole image sequence up to the answer."""
        return [*self.prefix_ids(None, form), *self.prompt_ids(Task("question", prompt, ()), form)]

    def _rows(self, kind: str, step: int, size: int) -> list[Row]:
        rng = random.Random(stable_seed(self.seed, kind, step))
        make = {"image": image_row, "text": text_row, "caption": caption_row}[kind]
        return [make(scene(self.split, rng.randrange(2**30), self.style), rng) for _ in range(size)]

    def collate(self, rows: list[Row]) -> TaskBatch:
        """Rows as tensors, in order; don't mix image rows with text rows."""
        behind = [index for index, row in enumerate(rows) if any(task.from_summary for task in row.tasks)]
        batch = self._tensors([self._encode(row) for row in rows], "text" if rows[0].caption else "image")
        batch = replace(batch, bound=_bound(rows))
        if rows[0].caption is None:
            pixels, labels = (torch.stack([make(row.scene) for row in rows]) for make in (draw_pixels, patch_labels))
            batch = replace(batch, pixel_values=pixels, labels=labels)
        if not behind:
            return batch
        read = self._tensors([self._encode_behind(rows[index]) for index in behind], batch.modality)
        return replace(batch, behind=read, behind_rows=torch.tensor(behind))

    def _tensors(self, encoded: list[tuple[list[Piece], list[Target]]], modality: str) -> TaskBatch:
        pieces = [row for row, _ in encoded]
        targets = [(index, target) for index, (_, found) in enumerate(encoded) for target in found]
        ids = _pad([[token for piece in row for token in piece.ids] for row in pieces], self.tokenizer.pad_token_id)
        is_slot = ids == self.prompts.visual_slot
        return TaskBatch(
            input_ids=ids,
            position_ids=_pad([_spread(row, lambda p: range(p.start, p.start + len(p.ids))) for row in pieces], 0),
            tasks=_pad([_spread(row, lambda p: [p.task] * len(p.ids)) for row in pieces], PADDING),
            answers=_pad([_spread(row, lambda p: [p.answer] * len(p.ids)) for row in pieces], PADDING),
            pixel_values=None,
            visual_start=is_slot.int().argmax(dim=1) if is_slot.any() else None,
            targets=_columns([(index, *target[:3]) for index, target in targets], 4),
            weights=torch.tensor([target.weight for _, target in targets]),
            modality=modality,
            summary=torch.tensor([len(row[0].ids) - 1 for row in pieces]),
        )

    def _encode(self, row: Row) -> tuple[list[Piece], list[Target]]:
        tasks = [task for task in row.tasks if not task.from_summary]
        return self._behind_prefix(self.prefix_ids(row.caption, row.form), row, tasks)

    def _encode_behind(self, row: Row) -> tuple[list[Piece], list[Target]]:
        tasks = [task for task in row.tasks if task.from_summary]
        return self._behind_prefix((self.prompts.visual_slot,), row, tasks)

    def _behind_prefix(self, prefix: tuple[int, ...], row: Row, tasks: list[Task]) -> tuple[list[Piece], list[Target]]:
        pieces, targets = [Piece(prefix, 0, 0, 0)], []
        for number, task in enumerate(tasks, start=1):
            self._add(task, number, row, pieces, targets)
        return pieces, targets

    def _add(self, task: Task, number: int, row: Row, pieces: list[Piece], targets: list[Target]) -> None:
        """Append a task's prompt and answers, and their targets."""
        start, name = len(pieces[0].ids), TASK_NAMES.index(task.name)
        column = sum(len(piece.ids) for piece in pieces)
        prompt, told = self.prompt_ids(task, row.form), None if row.caption is None else told_by(row.caption)
        if prompt:
            pieces.append(Piece(prompt, start, number, 0))
        last = column + len(prompt) - 1 if prompt else start - 1  # the prefix's last token is the summary token
        column += len(prompt)
        shown = task.answers[:1] if task.shares else task.answers
        for answer, text in enumerate(shown, start=1):
            ids, weights = self._answer(text, told)
            columns = [last, *range(column, column + len(ids))]
            follow = list(zip(columns, (*ids, self.tokenizer.eos_token_id), weights, strict=True))
            targets += [Target(at, token, name, weight) for at, token, weight in follow[bool(task.shares) :]]
            pieces.append(Piece(ids, start + len(prompt), number, answer))
            column += len(ids)
        firsts = zip(task.answers, task.shares, strict=False)
        targets += [Target(last, self.word_id(word), name, share) for word, share in firsts]

    def prefix_ids(self, caption: str | None, form: str = "summary") -> tuple[int, ...]:
        """What stands in front of all tasks of a row: the encoder's own row, or the beginning of a chat."""
        slots = (self.prompts.visual_slot,) * (IMAGE_SIZE // PATCH_SIZE) ** 2
        if form == "chat":
            content = slots if caption is None else self._ids(caption)
            return (self.tokenizer.bos_token_id, *self._ids("USER: "), *content)
        if caption is None:
            return tuple(self.prompts.image_row(len(slots)))
        (content,) = caption_ids(self.tokenizer, TEMPLATES.caption_place, [caption])
        return (*self.prompts.text.before, *content, *self.prompts.text.suffix)

    def prompt_ids(self, task: Task, form: str = "summary") -> tuple[int, ...]:
        """What stands between a row's prefix and a task's answers; nothing if the prefix asks for them itself."""
        if form == "chat":
            return self._ids(f"\n{task.prompt} ASSISTANT:")
        return () if task.shares else self._ids(f"</s>USER: {task.prompt} ASSISTANT:")

    def word_id(self, word: str) -> int:
        """The token of a word inside a text."""
        return self._ids(f" {word}")[0]

    def _answer(self, text: str, told: frozenset[str] | None) -> tuple[tuple[int, ...], list[float]]:
        """The ids of an answer as it stands behind a prompt, and the weights of them and of the end token."""
        ids = self._ids(f" {text}")
        return ids, [*target_weights([self._words[token] for token in ids], told), ENDING]

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)


def _bound(rows: list[Row]) -> torch.Tensor:
    """(3, N) what each row that ends in a summary token is asked about bindings."""
    asked = [(index, *one) for index, row in enumerate(rows) if row.form == "summary" for one in _bindings(row)]
    return _columns(asked, 3)


def _bindings(row: Row) -> list[tuple[int, int]]:
    everything = facts(row.scene)
    return labels(everything if row.claims is None else row.claims, everything)


def _columns(rows: list[tuple[int, ...]], width: int) -> torch.Tensor:
    """(width, N) of N rows, of which there may be none."""
    return torch.tensor(rows, dtype=torch.long).reshape(-1, width).T


def _spread(row: list[Piece], values) -> list[int]:
    return [value for piece in row for value in values(piece)]


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Right-pads to (B, T)."""
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
