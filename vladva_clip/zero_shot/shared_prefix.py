"""Captions with a common beginning: it runs through the trunk once, and its keys and values serve all of them.

Attention is causal, so a token never sees what follows it, and the features equal those of whole rows up to rounding.
Where it isn't, or a feature needs all of its row, whole rows run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch

from vladva_clip.encoder.prefix_cache import MIN_ROWS, PrefixCache
from vladva_clip.encoder.rows import Rows
from vladva_clip.encoder.towers import TextTower, micro_batches

MAX_FORKS = 64  # on the way to a group; each is a level of recursion, and deeper ones split ever fewer rows

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Rows, by index, whose captions share their first `length` ids."""

    length: int
    rows: list[int]


def groups(captions: Sequence[Ids]) -> list[Group]:
    """Split captions into groups with the longest common beginnings that leave at least MIN_ROWS rows in a group.

    Args:
        captions: ids, all different.

    Returns:
        Groups that hold each caption once; one of them may be smaller than MIN_ROWS.
    """
    found: list[Group] = []
    left = _part(captions, sorted(range(len(captions)), key=captions.__getitem__), MAX_FORKS, found)
    return [*found, _group(captions, left)] if left else found


def _part(captions: Sequence[Ids], rows: list[int], forks: int, found: list[Group]) -> list[int]:
    """Add the groups among sorted rows to `found`, and return the rows that are too few for a group."""
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
    """Make sorted rows a group. What the first and the last row share, all rows share."""
    return Group(_common(captions[rows[0]], captions[rows[-1]]) if rows else 0, rows)


def _common(first: Ids, second: Ids) -> int:
    differing = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differing, min(len(first), len(second)))


@torch.no_grad()
def encode_in_groups(tower: TextTower, captions: Sequence[Ids]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Embed captions group by group, a micro-batch of `tower.micro_batch_tokens` at a time.

    Groups whose beginnings are equally long run together, so that rows are sorted by length across them. The lock, eval
    mode and autocast are up to the caller (see `VladvaCLIP.evaluating`).

    Args:
        tower: the model's text tower.
        captions: ids without end of text, all different.

    Yields:
        Indices of B captions and their features `(B, D)`, float32 (float64 for a float64 model), not normalized.
    """
    shares = tower.encoding.shares_beginnings
    as_written = tower.prompts.rewriter is None  # else only the template's beginning is known to be shared
    found = groups(captions) if shares and as_written else [Group(0, list(range(len(captions))))]
    if not tower.prompts.text.suffix:  # then a caption's last token is pooled, and must be left
        found = [replace(one, length=min(one.length, *(len(captions[row]) - 1 for row in one.rows))) for one in found]
    by_length = sorted(found, key=lambda group: group.length)
    for length, alike in groupby(by_length, key=lambda group: group.length):
        start = tower.prompts.text_length(length) - len(tower.prompts.text.suffix) if shares else 0
        some = max(1, tower.micro_batch_tokens // max(1, start))  # number of beginnings held at a time
        waiting = list(alike)
        for first in range(0, len(waiting), some):
            yield from _encode(tower, captions, waiting[first : first + some], start)


def _encode(
    tower: TextTower, captions: Sequence[Ids], alike: list[Group], start: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Embed groups whose rows share their first `start` tokens each."""
    cache = _run_prefixes(tower, [captions[group.rows[0]] for group in alike], start) if start else None
    rows = [(number, row) for number, group in enumerate(alike) for row in group.rows]
    lengths = [tower.prompts.text_length(len(captions[row])) - start for _, row in rows]
    for places in micro_batches(lengths, tower.micro_batch_tokens):
        numbers, chosen = zip(*(rows[place] for place in places), strict=True)
        if cache is not None:
            cache.put_before(numbers)
        yield list(chosen), _features_behind(tower, [captions[row] for row in chosen], cache, start)


def _run_prefixes(tower: TextTower, captions: list[Ids], length: int) -> PrefixCache:
    """Run the first `length` tokens of the captions' rows, and keep each layer's keys and values."""
    cache = PrefixCache(config=tower.backbone.lvlm.config.get_text_config())
    _rows(tower, captions).columns(0, length).hidden_states(cache)
    return cache


def _features_behind(tower: TextTower, captions: list[Ids], cache: PrefixCache | None, start: int) -> torch.Tensor:
    """Run what follows the first `start` tokens, and pool: `(B, D)`."""
    rows = _rows(tower, captions)
    return tower.truncated((rows.columns(start) if start else rows).features(cache))


def _rows(tower: TextTower, captions: list[Ids]) -> Rows:
    return tower.rows([torch.tensor(ids, dtype=torch.long) for ids in captions])
