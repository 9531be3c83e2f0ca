"""Rank the rows of an index by a query, exactly and in memory that doesn't grow with the index."""

from typing import NamedTuple

import numpy as np

from vladva_clip.index.codes import Codes
from vladva_clip.index.store import KINDS, Index
from vladva_clip.interface.arguments import whole_number

_NUMBERS = 1 << 22  # of features in float64 at a time: 32 MB


class Hit(NamedTuple):
    """A row of the ranking: rank from 1, cosine, "image" or "text", and the name as in the index."""

    rank: int
    score: float
    kind: str
    name: str


def ranked(index: Index, query: np.ndarray, top: int, kind: str | None = "image") -> list[Hit]:
    """Return the rows nearest to a query, best first; of equal ones, the first in the index.

    Args:
        index: what is searched.
        query: `(D,)`, of any length but 0.
        top: the largest number of hits.
        kind: "image", "text", or None for both.

    Raises:
        ValueError: a query of another shape, not finite or 0; an unknown kind; top below 1.
    """
    top = whole_number("top", top, 1)
    if kind not in (None, *KINDS):
        raise ValueError(f"kind is {kind!r:.60}, expected image, text or None")
    scores = cosines(index.features, query)
    rows = [row for row, one in enumerate(index.kinds) if kind in (None, one)]
    order = np.argsort(-scores[rows], kind="stable")[:top]
    best = [rows[place] for place in order]
    return [Hit(rank, float(scores[row]), index.kinds[row], index.names[row]) for rank, row in enumerate(best, start=1)]


def cosines(features: np.ndarray | Codes, query: np.ndarray) -> np.ndarray:
    """Return each row's cosine with a query, `(N,)` float64.

    Equal rows get equal cosines: a matrix product, which sums in an order that depends on the place, would not.

    Args:
        features: `(N, D)`, rows of length 1.
        query: `(D,)`.

    Raises:
        ValueError: a query of another shape, not finite or 0.
    """
    query = np.asarray(query, np.float64)
    width = features.shape[1]
    if query.shape != (width,):
        raise ValueError(f"the query has the shape {query.shape}, expected ({width},) as the index")
    length = np.sqrt(query @ query)
    if not (0 < length < np.inf):
        raise ValueError(f"the query has the length {length}, expected a finite one above 0")
    scores, step = np.empty(len(features)), max(1, _NUMBERS // width)
    for start in range(0, len(features), step):
        scores[start : start + step] = (features[start : start + step] * (query / length)).sum(axis=1)
    return scores
