"""Exact scores of whole data sets, computed in blocks of queries; nothing here knows a model or a file.

Ties: in retrieval and in the compositional suites, a tie with a wrong answer is wrong (`vladva_clip.metrics`). In
classification the class listed first wins, as with argmax: the usual 1000 names of ImageNet hold "missile" and
"sunglasses" twice, and their equal features are not the model's fault.
"""

from collections.abc import Iterator, Sequence

import torch

from vladva_clip.metrics import wrong_items_ahead

BLOCK = 1 << 24  # similarities held at a time
RECALL_AT = (1, 5, 10)
RETRIEVAL = tuple(f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in RECALL_AT)
CLASSIFICATION = ("acc1", "acc5", "mean_per_class_recall")
"""The names of what `retrieval` and `classification` return."""


def retrieval(images: torch.Tensor, texts: torch.Tensor, owners: torch.Tensor) -> dict[str, float]:
    """Recall both ways, as the CLIP papers define it: one of a query's own items must be among the k best.

    Args:
        images: `(N, D)` normalized.
        texts: `(T, D)` normalized, several per image.
        owners: `(T,)` int64, the image of each text.

    Returns:
        `image_retrieval_recall@k` (the queries are texts) and `text_retrieval_recall@k` (the queries are images) for k
        of 1, 5 and 10: clip_benchmark's names. Fractions in [0, 1].
    """
    numbers = torch.arange(len(images))
    ways = {"image": (texts, owners, images, numbers), "text": (images, numbers, texts, owners)}
    ahead = {name: _wrong_ahead(*way) for name, way in ways.items()}
    return {f"{name}_retrieval_recall@{k}": _share(ahead[name] < k) for name in ways for k in RECALL_AT}


def classification(images: torch.Tensor, classes: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Zero-shot top-1 and top-5, and the mean over classes of the share of their images that are right.

    Args:
        images: `(N, D)` normalized.
        classes: `(C, D)` normalized.
        labels: `(N,)` int64.

    Returns:
        `acc1`, `acc5`, `mean_per_class_recall`: clip_benchmark's names. Fractions in [0, 1].

    Raises:
        ValueError: a similarity is NaN.
    """
    order = torch.arange(len(classes))
    ahead = []
    for rows in _blocks(len(images), len(classes)):
        scores, own = images[rows] @ classes.T, labels[rows, None]
        if scores.isnan().any():
            raise ValueError("some similarities are NaN, expected numbers: look at the features")
        at_own = scores.gather(1, own)
        ahead.append(((scores > at_own) | ((scores == at_own) & (order < own))).sum(dim=1))
    ahead = torch.cat(ahead)
    per_class = [_share(ahead[labels == label] < 1) for label in labels.unique()]
    return {
        "acc1": _share(ahead < 1),
        "acc5": _share(ahead < 5),
        "mean_per_class_recall": sum(per_class) / len(per_class),
    }


def similarity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the similarity `(N,)` of each row of one `(N, D)` to the same row of the other."""
    return (first * second).sum(dim=-1)


def mean(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of several data sets' metrics, name by name."""
    return {name: sum(one[name] for one in metrics) / len(metrics) for name in metrics[0]}


def _wrong_ahead(
    queries: torch.Tensor, query_owners: torch.Tensor, items: torch.Tensor, item_owners: torch.Tensor
) -> torch.Tensor:
    parts = [
        wrong_items_ahead(queries[rows] @ items.T, query_owners[rows, None] == item_owners)
        for rows in _blocks(len(queries), len(items))
    ]
    return torch.cat(parts)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, BLOCK // columns)
    return (slice(start, start + size) for start in range(0, rows, size))


def _share(right: torch.Tensor) -> float:
    return right.double().mean().item()
