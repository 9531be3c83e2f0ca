"""Captions that begin alike: the beginning runs through the trunk once, and its keys and values serve all of them.

Causal attention makes that equal to running each row whole, up to rounding: what stands in front of a token never sees
what comes behind it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import DynamicCache

from vladva_clip.pooling import summary_features
from vladva_clip.towers import TextTower, embed_with_soft_prompt, micro_batches

MIN_ROWS = 128  # fewer rows are left with those that share less with them: small batches cost more than they save
MAX_FORKS = 64  # on the way to a group; each takes a step of recursion, and deeper ones part ever fewer rows

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Rows, by index, whose captions share their first `length` ids."""

    length: int
    rows: list[int]


class PrefixCache(DynamicCache):
    """The keys and values of one row, in front of every row of the batches that follow; a batch leaves nothing behind.

    It is filled by the first forward pass, of one row, until `freeze`.
    """

    frozen = False

    def freeze(self) -> None:
        """Keep what is there, and no more."""
        self.frozen = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's keys and values, `(B, heads, T, head size)`, with the prefix in front of each row's own."""
        if not self.frozen:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        kept = self.layers[layer_idx]
        return _behind(kept.keys, key_states), _behind(kept.values, value_states)


def _behind(prefix: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    return torch.cat([prefix.expand(len(states), -1, -1, -1), states], dim=-2)


def groups(captions: Sequence[Ids]) -> list[Group]:
    """Part captions into groups that share as much of their beginning as leaves at least MIN_ROWS rows together.

    Args:
        captions: ids, all different.

    Returns:
        Groups that hold each caption once; one of them may have fewer rows.
    """
    found: list[Group] = []
    left = _part(captions, sorted(range(len(captions)), key=captions.__getitem__), MAX_FORKS, found)
    return [*found, _group(captions, left)] if left else found


def _part(captions: Sequence[Ids], rows: list[int], forks: int, found: list[Group]) -> list[int]:
    """Add the groups among sorted rows to `found`, and return the rows that are too few for one."""
    shared = _group(captions, rows).length
    left: list[int] = []
    for _, run in groupby(rows, key=lambda row: captions[row][shared : shared + 1]):
        together = list(run)
        deeper = forks and MIN_ROWS <= len(together) < len(rows)
        left += _part(captions, together, forks - 1, found) if deeper else together
    if len(left) < MIN_ROWS:
        return left
    found.append(_group(captions, left))
    return []


def _group(captions: Sequence[Ids], rows: list[int]) -> Group:
    """Make sorted rows a group: what the first and the last share, all share."""
    return Group(_common(captions[rows[0]], captions[rows[-1]]) if rows else 0, rows)


def _common(first: Ids, second: Ids) -> int:
    differing = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differing, min(len(first), len(second)))


@torch.no_grad()
def encode_in_groups(tower: TextTower, captions: Sequence[Ids]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Embed captions group by group, a micro-batch of `tower.micro_batch_tokens` at a time.

    Nothing is locked, and dropout and autocast are the caller's affair (see `VladvaCLIP.evaluating`).

    Args:
        tower: the model's text tower.
        captions: ids without end of text, all different.

    Yields:
        Indices of B captions and their features `(B, D)`, float32 (float64 of a float64 model), not normalised.
    """
    for group in groups(captions):
        start = tower.prompts.text_length(group.length) - len(tower.prompts.text.suffix)
        prefix = _run_prefix(tower, captions[group.rows[0]], start)
        lengths = [tower.prompts.text_length(len(captions[row])) - start for row in group.rows]
        for places in micro_batches(lengths, tower.micro_batch_tokens):
            rows = [group.rows[place] for place in places]
            yield rows, _features_behind(tower, [captions[row] for row in rows], prefix, start)


def _run_prefix(tower: TextTower, caption: Ids, length: int) -> PrefixCache:
    """Run the first `length` tokens of a caption's row, and keep each layer's keys and values."""
    cache = PrefixCache(config=tower.backbone.lvlm.config.get_text_config())
    embeddings = embed_with_soft_prompt(tower.backbone, _layout(tower, [caption]), tower.soft_prompt)
    if length:  # a family without BOS, a template without a beginning and captions that share nothing leave none
        positions = tower.backbone.position_ids(length, None, 0)
        tower.backbone.trunk(embeddings[:, :length], positions, cache)
    cache.freeze()
    return cache


def _features_behind(tower: TextTower, captions: list[Ids], prefix: PrefixCache, start: int) -> torch.Tensor:
    """Run what stands behind the prefix, and pool: `(B, D)`."""
    batch = _layout(tower, captions)
    embeddings = embed_with_soft_prompt(tower.backbone, batch, tower.soft_prompt)[:, start:]
    positions = tower.backbone.position_ids(batch.input_ids.shape[1], None, 0)[..., start:]
    hidden_states = tower.backbone.trunk(embeddings, positions, prefix if start else None)
    return summary_features(hidden_states, batch.summary_index - start)


def _layout(tower: TextTower, captions: list[Ids]):
    return tower.prompts.text_batch([torch.tensor(ids, dtype=torch.long) for ids in captions]).to(tower.backbone.device)
