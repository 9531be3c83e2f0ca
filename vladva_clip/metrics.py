"""Scores of an encoder from its similarities; nothing here knows a model.

Every score is a fraction in [0, 1] and strict: a tie with a wrong answer is wrong, so an encoder with equal features
for everything scores zero. NaN similarities are refused.
"""

import torch


def recall_at_k(similarity: torch.Tensor, positives: torch.Tensor, k: int) -> float:
    """Share of queries with at least one positive among their k best items (recall as the CLIP papers define it).

    Args:
        similarity: `(Q, N)`, higher is more similar.
        positives: `(Q, N)` bool, True where the item answers the query.
        k: number of best items.

    Returns:
        A fraction in [0, 1]. A positive that ties with a wrong item for place k does not count: fewer than k wrong
        items may be at least as similar.

    Raises:
        ValueError: unequal shapes, no queries, or a NaN similarity.
    """
    return _share((wrong_items_ahead(similarity, positives) < k) & positives.any(dim=1))


def wrong_items_ahead(similarity: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Count the wrong items at least as similar to each query as its best positive; recall at any k follows from it.

    Args:
        similarity: `(Q, N)`, higher is more similar.
        positives: `(Q, N)` bool, True where the item answers the query.

    Returns:
        `(Q,)` int64; N for a query without a positive.

    Raises:
        ValueError: unequal shapes, no queries, or a NaN similarity.
    """
    if similarity.shape != positives.shape:
        raise ValueError(
            f"similarity is {tuple(similarity.shape)} and positives {tuple(positives.shape)}; expected equal"
        )
    _check(similarity)
    best = similarity.masked_fill(~positives, float("-inf")).amax(dim=1, keepdim=True)  # (Q, 1)
    return ((similarity >= best) & ~positives).sum(dim=1)


def top_1_accuracy(similarity: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images whose own class scores strictly above all others (zero-shot classification).

    Args:
        similarity: `(N, C)` of each image to each class; -inf excludes a class.
        labels: `(N,)` int64, the true class.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: the labels are not one class per image, no images, or a NaN similarity.
    """
    count, classes = similarity.shape
    if labels.shape != (count,) or (count and not 0 <= int(labels.min()) <= int(labels.max()) < classes):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, values {labels.tolist()[:8]}; "
            f"expected {count} of 0 to {classes - 1}"
        )
    itself = torch.nn.functional.one_hot(labels, classes).bool()
    return recall_at_k(similarity, itself, 1)


def foil_accuracy(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Share of pairs whose true caption scores strictly above its foil (SugarCrepe's rule: a tie is wrong).

    Args:
        positive: `(N,)` similarity of each image to its true caption.
        negative: `(N,)` similarity of each image to its foil.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: unequal shapes, no pairs, or a NaN similarity.
    """
    _check(positive, negative)
    return _share(positive > negative)


def itt_accuracy(caption: torch.Tensor, paraphrase: torch.Tensor, negative: torch.Tensor) -> float:
    """SugarCrepe++'s image-to-text score: the image must prefer both true captions to the negative.

    Args:
        caption: `(N,)` similarity of each image to its caption.
        paraphrase: `(N,)` similarity of each image to its second true caption.
        negative: `(N,)` similarity of each image to the hard negative.

    Returns:
        A fraction in [0, 1]; chance is 1/4 for two independent coin tosses, 1/3 for a random order.

    Raises:
        ValueError: unequal shapes, no triples, or a NaN similarity.
    """
    _check(caption, paraphrase, negative)
    return _share((caption > negative) & (paraphrase > negative))


def tot_accuracy(
    caption_paraphrase: torch.Tensor, caption_negative: torch.Tensor, paraphrase_negative: torch.Tensor
) -> float:
    """SugarCrepe++'s text-only score: the true captions must be more similar to each other than to the negative.

    Args:
        caption_paraphrase: `(N,)` similarity between the two true captions.
        caption_negative: `(N,)` similarity between the caption and the hard negative.
        paraphrase_negative: `(N,)` similarity between the second true caption and the hard negative.

    Returns:
        A fraction in [0, 1]; chance is 1/3, for a random order of the three.

    Raises:
        ValueError: unequal shapes, no triples, or a NaN similarity.
    """
    _check(caption_paraphrase, caption_negative, paraphrase_negative)
    return _share((caption_paraphrase > caption_negative) & (caption_paraphrase > paraphrase_negative))


def winoground_scores(similarity: torch.Tensor) -> dict[str, float]:
    """Winoground's three scores of quadruples: two images and two captions, each true of its own image only.

    Args:
        similarity: `(N, 2, 2)`, image by caption; the diagonal holds the true pairs.

    Returns:
        `text`: each image prefers its own caption; `image`: each caption prefers its own image; `group`: both.
        Fractions in [0, 1]; chance is 1/4, 1/4 and 1/6.

    Raises:
        ValueError: another shape, no quadruples, or a NaN similarity.
    """
    if similarity.shape[1:] != (2, 2):
        raise ValueError(f"similarity is {tuple(similarity.shape)}; expected (N, 2, 2), image by caption")
    _check(similarity)
    (own, other_caption), (other_image, own_too) = similarity.permute(1, 2, 0)  # by image, then by caption; (N,) each
    text = (own > other_caption) & (own_too > other_image)
    image = (own > other_image) & (own_too > other_caption)
    return {"text": _share(text), "image": _share(image), "group": _share(text & image)}


def _check(*similarities: torch.Tensor) -> None:
    shapes = [tuple(similarity.shape) for similarity in similarities]
    if len(set(shapes)) > 1:
        raise ValueError(f"the similarities are {' and '.join(map(str, shapes))}; expected equal shapes")
    if not len(similarities[0]):
        raise ValueError(f"the similarities are {shapes[0]}: nothing to score")
    not_numbers = sum(int(similarity.isnan().sum()) for similarity in similarities)
    if not_numbers:
        raise ValueError(f"{not_numbers} similarities are NaN, expected numbers: look at the features")


def _share(right: torch.Tensor) -> float:
    return right.double().mean().item()
