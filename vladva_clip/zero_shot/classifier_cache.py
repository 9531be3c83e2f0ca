"""Zero-shot classifiers on disk, under a hash of all that they are computed from.

A name can't tell everything about a program that runs. So features of a few texts are kept with a classifier, and it is
only taken if the model computes them again.
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

FORMAT = 2  # of what a key covers and a file holds
DIRECTORY = "VLADVA_CLIP_CACHE"  # environment variable
CLASSIFIER, PROBES = "classifier", "probes"
NUM_PROBES = 16
# largest distance of a probe's feature, of length 1, to itself on another device or with other threads, by dtype
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
_log = logging.getLogger(__name__)


def default_directory() -> Path:
    """Return where classifiers are kept: `$VLADVA_CLIP_CACHE`, or the user's cache directory (XDG base directories).

    Raises:
        RuntimeError: the user has no home directory, as a container's user without a name.
    """
    if directory := os.environ.get(DIRECTORY):
        return Path(directory).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vladva_clip" / "classifiers"


def key(model: VladvaCLIP, tokenizer: Any, texts: list[str], classes: int) -> str | None:
    """Return the name of a classifier: a sha256 of weights and structure, prompt, tokenizer and texts in their order.

    None is for what can't be named (see `encoder_identity`), and for a dtype whose rounding isn't known.
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
    """Choose texts that tell a model from others: first, last, shortest, longest, and some that the key decides."""
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
    """Return the classifier of a key from disk, or build and keep it.

    Files that are damaged, or of a model that computes otherwise, are reported and built anew. A directory that can't
    be written is reported too: what was computed must not be lost to it.

    Args:
        name: the key.
        shape: of the classifier, `(D, classes)`.
        dtype: that the model computes in.
        build: computes it, float32 on the CPU.
        probe: computes the features of the texts of `probes`, `(P, D)` float32 on the CPU, of length 1.
        directory: where; `default_directory()` for None.
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
            "%s was computed otherwise than this model computes now, though weights and structure are the same (other "
            "library versions, settings or patches); it is built again",
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
        _log.warning("the classifier is not kept (%s): name a directory in %s, or cache=False", error, DIRECTORY)
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
        _log.warning("the classifier could not be kept in %s: %s; the next one is built again", path.parent, error)
