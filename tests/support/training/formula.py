"""The loss of a batch by its formula, pair by pair and image by image, in one graph: what a step must equal.

Nothing of the losses' own code is used here, nor their masks: only each image's own forward.
"""

import re

import torch
import torch.nn.functional as F
from torch import nn

from tests.support.training.steps import gradients, rows_of
from vladva_training.config import LossSection, Recipe
from vladva_training.step.batches import Batch


def contrastive(loss, i, t, s, b, valid, same, hard_negatives=None, hard_valid=None, hardness=0.0):
    """The mean over valid rows of the sum of both directions' cross-entropies (VladVA, section 3.2.1, equation 1).

    With "hardness", negatives weigh exp(hardness * cosine). With "sigmoid", SigLIP's equation 1. The arguments are
    those of `info_nce`, with s the log of the factor and b the bias.
    """
    total, rows = 0.0, [row for row in range(len(i)) if valid[row]]

    def logit(image, text, negative):
        cosine = image @ text
        return s.exp() * cosine + (hardness * cosine.detach() if negative and loss == "hardness" else 0.0)

    for row in rows:
        others = [other for other in rows if other != row]
        of_image = [logit(i[row], t[other], True) for other in others if not same[row][other]]
        of_text = [logit(i[other], t[row], True) for other in others if not same[other][row]]
        if hard_negatives is not None:
            count = hard_negatives.shape[1]
            of_image += [logit(i[row], hard_negatives[row, k], True) for k in range(count) if hard_valid[row][k]]
        positive = logit(i[row], t[row], False)
        if loss == "sigmoid":
            total = total - F.logsigmoid(positive + b) - sum(F.logsigmoid(-(negative + b)) for negative in of_image)
        else:
            for negatives in (of_image, of_text):
                total = total + torch.logsumexp(torch.stack([positive, *negatives]), 0) - positive
    return total / len(rows)


def step(fused: nn.Module, whole: Recipe, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return the gradients and losses of the whole batch, as `one_step` does."""
    found = losses(fused, whole.loss, batch)
    found["loss"].backward()
    return gradients(fused), {name: value.item() for name, value in found.items()}


def losses(fused: nn.Module, section: LossSection, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the parts of the loss and, as "loss", their weighted sum.

    Next-token prediction is the mean over the batch's labeled tokens: an image without a long caption adds none.
    """
    outputs = [_output(fused, rows_of(batch, row)) for row in range(len(batch))]
    images = torch.stack([output.image_features[0] for output in outputs])
    short, other, hard = _texts(outputs, batch, section.hard_negatives)
    has_short, has_other = ([text is not None for text in texts] for texts in (batch.short, batch.other_short))
    scale, bias = outputs[0].scales
    captions, rows = _captions(batch, near=section.false_negatives == "near"), range(len(batch))
    known = section.false_negatives == "known"
    options = {"hardness": section.hardness}
    if section.hard_negatives:
        options |= {"hard_negatives": hard, "hard_valid": _false(batch, captions, known, section.hard_negatives)}
    same = [[bool(captions[j][0] & captions[i][1]) or known and _is_true(batch, i, j, 0) for j in rows] for i in rows]
    name = section.contrastive
    found = {"contrastive": contrastive(name, images, short, scale, bias, has_short, same, **options)}
    if section.text_text_weight:
        both = [one and two for one, two in zip(has_short, has_other, strict=True)]
        same = [[bool(captions[i][1] & captions[j][1]) or known and _either(batch, i, j) for j in rows] for i in rows]
        found["text_text"] = contrastive(name, short, other, scale, bias, both, same, **options)
    labeled = sum(len(caption) for caption in batch.long if caption is not None)
    ntp = sum(output.ntp_sum for output in outputs) / labeled
    total = found["contrastive"] + section.text_text_weight * found.get("text_text", 0.0) + section.ntp_weight * ntp
    return {"loss": total, **found, **({"ntp": ntp} if section.ntp_weight else {})}


def _output(fused, one: Batch):
    return fused(one, fused.visual_tokens(one.images))


def _texts(outputs, batch: Batch, num_hard: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the features of the short, second and false captions; absent ones are zero."""
    zero = torch.zeros_like(outputs[0].image_features[0])
    rows = []
    for row, output in enumerate(outputs):
        left = list(output.text_features)
        pair = [left.pop(0) if there[row] is not None else zero for there in (batch.short, batch.other_short)]
        rows.append([*pair, *left, *[zero] * (num_hard - len(left))])
    stacked = torch.stack([torch.stack(row) for row in rows])
    return stacked[:, 0], stacked[:, 1], stacked[:, 2:]


def _captions(batch: Batch, near: bool) -> list[tuple[set, set]]:
    """Return what each row's short caption is known by, and what all captions of its picture are known by."""

    def known(ids, text=None):
        words = text.split() if text is not None else []
        if near and text is not None:
            words = re.sub(r"\b(a|an|the)\b|[^\w\s]", " ", text.lower()).split()
        return ({tuple(ids.tolist())} if ids is not None else set()) | ({" ".join(words)} if words else set())

    short = [known(ids, text) for ids, text in zip(batch.short, batch.short_texts, strict=True)]
    own = [mine | known(other) for mine, other in zip(short, batch.other_short, strict=True)]
    rows = range(len(batch))
    return [(short[i], set().union(*(own[j] for j in rows if batch.pictures[i] == batch.pictures[j]))) for i in rows]


def _is_true(batch: Batch, picture: int, row: int, number: int) -> bool:
    """Whether a picture's rows have all facts that a row's caption claims; it is the short, second or a false one."""
    rows = [other for other in range(len(batch)) if batch.pictures[other] == batch.pictures[picture]]
    claims = batch.claims[row][number : number + 1]
    return any(claims) and set(*claims) <= set().union(*(batch.facts[one].tolist() for one in rows))


def _either(batch: Batch, one: int, other: int) -> bool:
    """Whether one image's short caption is true of the other's picture, or the other's second caption of its own."""
    return _is_true(batch, other, one, 0) or _is_true(batch, one, other, 1)


def _false(batch: Batch, captions: list[tuple[set, set]], known: bool, num_hard: int) -> list[list[bool]]:
    """Return which false captions there are that are not a caption of their picture, nor known to be true of it."""

    def holds(row: int, number: int) -> bool:
        ids = tuple(batch.hard_negatives[row][number].tolist())
        return ids in captions[row][1] or known and _is_true(batch, row, row, 2 + number)

    there = [[not holds(row, number) for number in range(len(own))] for row, own in enumerate(batch.hard_negatives)]
    return [row + [False] * (num_hard - len(row)) for row in there]
