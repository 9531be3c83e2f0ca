"""Zero-shot classifiers on disk, under a hash of everything that they are computed from.

A hash can't cover everything about a running program. So features of a few texts are stored with each classifier, and
it is reused only if the model still computes the same features.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vladva_clip.model import VladvaCLIP
from vladva_clip.storage import sealed, whole
from vladva_clip.zero_shot import encoder_identity

FORMAT = 2  # version of what a key covers and a file contains
DIRECTORY = "VLADVA_CLIP_CACHE"  # environment variable
CLASSIFIER, PROBES = "classifier", "probes"
NUM_PROBES = 16
# largest distance between a probe's features (length 1) computed on different devices or thread counts, by dtype
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
_log = logging.getLogger(__name__)


def default_directory() -> Path:
    """Return the cache's directory: `$VLADVA_CLIP_CACHE`, or within the user's cache directory (XDG base directories).

    Raises:
        RuntimeError: the user has no home directory, such as a nameless user of a container.
    """
    if directory := os.environ.get(DIRECTORY):
        return Path(directory).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vladva_clip" / "classifiers"


def key(model: VladvaCLIP, tokenizer: Any, texts: list[str], classes: int) -> str | None:
    """Return a classifier's name: a sha256 of weights, structure, prompt, tokenizer, and texts in order.

    Returns None if the model or tokenizer can't be identified (see `encoder_identity`), or for a dtype with unknown
    rounding.
    """
    tokens = encoder_identity.of_tokenizer(tokenizer)
    if tokens is None or model.visual.backbone.dtype not in TOLERANCES:
        return None
    weights = encoder_identity.of_model(model)
    if weights is None:
        return None
    digest = hashlib.sha256(f"{FORMAT} {model.embed_dim} {classes} {len(texts)} {tokens}".encode())
    digest.update(weights)
    digest.update(hashlib.sha256(json.dumps(texts).encode()).digest())
    return digest.hexdigest()


def probes(texts: list[str], name: str) -> list[str]:
    """Choose texts to compare models by: the first, last, shortest and longest, and some chosen by the key."""
    different = list(dict.fromkeys(texts))
    step = max(1, len(different) // (NUM_PROBES - 4))
    others = different[int(name[:8], 16) % step :: step]
    ends = (different[0], different[-1], min(different, key=len), max(different, key=len))
    return list(dict.fromkeys([*ends, *others]))[:NUM_PROBES]


def cached(
    name: str,
    shape: tuple[int, int],
    dtype: torch.dtype,
    build: Callable[[], torch.Tensor],
    probe: Callable[[], torch.Tensor],
    directory: str | os.PathLike[str] | None,
) -> torch.Tensor:
    """Return a key's classifier from disk, or build and store it.

    A file that is damaged, or whose model computed different features, is reported and built again. A directory that
    can't be written to is only reported too, so that the computed classifier isn't lost.

    Args:
        name: the key.
        shape: of the classifier, `(D, classes)`.
        dtype: the model's.
        build: computes the classifier, float32 on the CPU.
        probe: computes the features of the texts from `probes`, `(P, D)` float32 on the CPU, of length 1.
        directory: the cache's directory; None means `default_directory()`.
    """
    folder = _folder(directory)
    if folder is None:
        return build()
    path = folder / f"{name}.safetensors"
    now = probe()
    kept = _read(path, name, {CLASSIFIER: shape, PROBES: tuple(now.shape)})
    if kept is not None and _agree(kept[PROBES], now, TOLERANCES[dtype]):
        return kept[CLASSIFIER]
    if kept is not None:
        _log.warning(
            "%s doesn't match what this model computes now, although weights and structure are the same (other library "
            "versions, settings or patches); it is built again",
            path,
        )
    classifier = build()
    if classifier.isfinite().all() and now.isfinite().all():
        _keep(path, sealed.tensors(name, {CLASSIFIER: classifier, PROBES: now}))
    return classifier


def _folder(directory: str | os.PathLike[str] | None) -> Path | None:
    try:
        return Path(directory) if directory else default_directory()
    except RuntimeError as error:
        _log.warning("the classifier is not stored (%s): set a directory in %s, or pass cache=False", error, DIRECTORY)
        return None


def _agree(kept: torch.Tensor, now: torch.Tensor, tolerance: float) -> bool:
    return bool(((kept - now).norm(dim=-1) <= tolerance).all())  # False for NaN


def _read(path: Path, name: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor] | None:
    try:
        found = sealed.read_tensors(path, name, shapes)
    except sealed.DamagedError as error:
        _log.warning("%s is not a readable classifier (%s); it is built again", path, error)
        return None
    return found and found[0]


def _keep(path: Path, content: bytes) -> None:
    try:
        whole.write(path, content)
    except OSError as error:
        _log.warning("the classifier can't be stored in %s (%s); it will be built again next time", path.parent, error)
