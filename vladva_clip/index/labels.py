"""Labels as a zero-shot classifier, and files with a label or a text per line."""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vladva_clip.interface.arguments import whole_number
from vladva_clip.storage import plain_files
from vladva_clip.zero_shot.builder import build_zero_shot_classifier

_BREAK = re.compile(b"\r\n|\n|\r")


def label_features(model: Any, tokenizer: Any, labels: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Return the features of labels, averaged over templates: `(D, C)` float32 on the model's device.

    Args:
        model: a VladvaCLIP.
        tokenizer: its tokenizer.
        labels: C names.
        templates: texts with a hole `{}` for the label.

    Raises:
        ValueError: a label twice, no labels, or as `build_zero_shot_classifier`.
    """
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"the label {label!r:.80} is there twice; remove one")
        seen.add(label)
    return build_zero_shot_classifier(model, tokenizer, list(labels), list(templates))


def classify(
    features: torch.Tensor | np.ndarray, classifier: torch.Tensor, logit_scale: float, top: int
) -> list[list[tuple[int, float, float]]]:
    """Choose the labels nearest to each picture.

    Args:
        features: `(N, D)`, rows of length 1.
        classifier: `(D, C)`, columns of length 1 (`label_features`).
        logit_scale: the factor, `model.logit_scale.exp()`.
        top: how many labels a picture gets, C at most.

    Returns:
        For each picture `(label index, cosine, probability)`, best first, ties in the order of the labels. The
        probability is the softmax of `logit_scale * cosine` over all C labels (CLIP, arXiv 2103.00020, section 3.1.2).

    Raises:
        ValueError: top below 1.
    """
    top = whole_number("top", top, 1)
    weights = classifier.detach().double().cpu()
    cosines = torch.as_tensor(features).detach().double().cpu() @ weights  # (N, C)
    probabilities = (float(logit_scale) * cosines).softmax(dim=1)
    order = cosines.argsort(dim=1, descending=True, stable=True)[:, :top]
    return [
        [(label, float(cosines[row, label]), float(probabilities[row, label])) for label in best]
        for row, best in enumerate(order.tolist())
    ]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, without spaces around them; empty lines are skipped.

    Raises:
        ValueError: unreadable, not UTF-8 or binary, with the line's number; or nothing in it.
    """
    try:
        text = _text(plain_files.read_bytes(path).removeprefix(codecs.BOM_UTF8))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as lines of text ({plain_files.said(error)})") from error
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if not any(lines):
        raise ValueError(f"{path} is empty, expected a text per line")
    return [line for line in lines if line]


def _text(content: bytes) -> str:
    if (place := content.find(b"\0")) >= 0:
        raise ValueError(f"line {_line(content, place)} has a NUL: a binary file or UTF-16, expected UTF-8")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"line {_line(content, error.start)} is not UTF-8: save the file as UTF-8") from error


def _line(content: bytes, place: int) -> int:
    return len(_BREAK.findall(content, 0, place)) + 1
