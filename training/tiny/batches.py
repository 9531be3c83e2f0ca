"""Turns rows of tasks into tensors: branches side by side behind one prefix, and the targets of the loss."""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from vladva_clip.scenes import Scene, scene, stable_seed
from vladva_training.tiny.model import IMAGE_SIZE, PATCH_SIZE
from vladva_training.tiny.tasks import Row, Task, image_row, text_row

PADDING_BRANCH = -1
PREFIX_BRANCH = 0

TASK_NAMES = ("one_word", "image_long", "image_short", "text_text", "text_long", "text_short", "question")

_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), dtype=np.float32)
_STD = np.array((0.26862954, 0.26130258, 0.27577711), dtype=np.float32)


@dataclass(frozen=True)
class TaskBatch:
    """Rows as tensors.

    Attributes:
        input_ids: (B, T).
        position_ids: (B, T); every branch continues the positions of its prefix.
        branches: (B, T); 0 the prefix, 1 and up the branches, -1 padding.
        pixel_values: (B, 3, H, W) for image rows, None for text rows.
        scenes: the drawn scenes of image rows, () for text rows.
        targets: (4, K) row, column, token id and task (index in TASK_NAMES) of what follows a position.
        weights: (K,) share of each target at its position.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    branches: torch.Tensor
    pixel_values: torch.Tensor | None
    targets: torch.Tensor
    weights: torch.Tensor
    scenes: tuple[Scene, ...] = ()

    @property
    def attention_mask(self) -> torch.Tensor:
        """(B, 1, T, T), 0 where a position may look (back, at its prefix and its own branch), -inf elsewhere.

        Added to the attention's scores: transformers' eager attention would add a boolean mask as well, as 0 and 1.
        """
        queries, keys = self.branches[:, :, None], self.branches[:, None, :]
        length = self.branches.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        seen = ((keys == queries) | (keys == PREFIX_BRANCH)) & causal
        return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]


class Batcher:
    """Makes batches of training rows; batch `step` is a pure function of the seed and the step."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, split: str = "train", seed: int = 0):
        self.tokenizer, self.split, self.seed = tokenizer, split, seed
        self._ids = lru_cache(maxsize=100_000)(self._tokenize)

    def image_batches(self, step: int, size: int) -> list[TaskBatch]:
        """`size` image rows, rows of similar length together."""
        return self._collate_sorted([image_row(*args) for args in self._draws("image", step, size)])

    def text_batches(self, step: int, size: int) -> list[TaskBatch]:
        """`size` text rows, rows of similar length together."""
        return self._collate_sorted([text_row(*args) for args in self._draws("text", step, size)])

    def _draws(self, kind: str, step: int, size: int):
        rng = random.Random(stable_seed(self.seed, kind, step))
        return [(scene(self.split, rng.randrange(2**30)), rng) for _ in range(size)]

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _collate_sorted(self, rows: list[Row], parts: int = 2) -> list[TaskBatch]:
        """Sorts by length and splits, so that batches hold little padding."""
        rows = sorted(rows, key=lambda row: len(self._encode(0, row)[0][0]))
        size = -(-len(rows) // parts)
        return [self.collate(rows[start : start + size]) for start in range(0, len(rows), size)]

    def collate(self, rows: list[Row]) -> TaskBatch:
        """Rows as tensors, in order; don't mix image rows with text rows."""
        encoded = [self._encode(index, row) for index, row in enumerate(rows)]
        targets = [target for _, row_targets in encoded for target in row_targets]
        has_images = rows[0].caption is None
        return TaskBatch(
            input_ids=_pad([ids for (ids, _, _), _ in encoded], self.tokenizer.pad_token_id),
            position_ids=_pad([positions for (_, positions, _), _ in encoded], 0),
            branches=_pad([branches for (_, _, branches), _ in encoded], PADDING_BRANCH),
            pixel_values=torch.stack([draw_pixels(row.scene) for row in rows]) if has_images else None,
            targets=torch.tensor([target[:4] for target in targets]).T,
            weights=torch.tensor([target[4] for target in targets]),
            scenes=tuple(row.scene for row in rows) if has_images else (),
        )

    def _encode(self, index: int, row: Row) -> tuple[tuple[list, list, list], list]:
        """((ids, positions, branches), targets) of one row."""
        ids = self.prefix_ids(row.caption)
        start = len(ids)
        positions, branches, targets = list(range(start)), [PREFIX_BRANCH] * start, []
        for branch, task in enumerate(row.tasks, start=1):
            prompt, answer = self._ids(f"\n{task.prompt} ASSISTANT:"), self._ids(task.answer)
            targets += self._targets(index, len(ids) + len(prompt) - 1, task, answer)
            ids += (*prompt, *answer)
            positions += range(start, start + len(prompt) + len(answer))
            branches += [branch] * (len(prompt) + len(answer))
        return (ids, positions, branches), targets

    def prefix_ids(self, caption: str | None) -> list[int]:
        """BOS `USER: ` and the image's tokens (caption None) or the caption's, each piece tokenized alone."""
        image_id = self.tokenizer.convert_tokens_to_ids("<image>")
        content = [image_id] * (IMAGE_SIZE // PATCH_SIZE) ** 2 if caption is None else self._ids(caption)
        return [self.tokenizer.bos_token_id, *self._ids("USER: "), *content]

    def image_prompt_ids(self, prompt: str) -> list[int]:
        """The whole image sequence up to the answer."""
        return [*self.prefix_ids(None), *self._ids(f"\n{prompt} ASSISTANT:")]

    def _targets(self, row: int, summary: int, task: Task, answer: tuple[int, ...]) -> list[tuple]:
        """(row, column, token, task, weight) per target; one-word answers share the first position."""
        kind = TASK_NAMES.index(task.name)
        first = [self._ids(word)[0] for word in task.answers] or [answer[0]]
        rest = [*answer[1:], self.tokenizer.eos_token_id]
        shared = [(row, summary, token, kind, 1 / len(first)) for token in first]
        return shared + [(row, summary + 1 + offset, token, kind, 1.0) for offset, token in enumerate(rest)]


def draw_pixels(drawn) -> torch.Tensor:
    """A scene drawn and normalized: (3, H, W)."""
    pixels = np.asarray(drawn.draw(IMAGE_SIZE), dtype=np.float32) / 255
    return torch.from_numpy(((pixels - _MEAN) / _STD).transpose(2, 0, 1).copy())


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Right-pads to (B, T)."""
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
