"""Zero-shot classifiers on disk, under a hash of all that they are computed from.

Nothing is remembered of a model between two calls: its weights are read again for every key, so that weights which
were changed in place, by whatever means, get a key of their own.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from vladva_clip import lora
from vladva_clip.model import VladvaCLIP
from vladva_clip.tokenizer import VladvaTokenizer

FORMAT = 1  # of what a key covers and a file holds
DIRECTORY = "VLADVA_CLIP_CACHE"  # environment variable
TENSOR = "classifier"
_log = logging.getLogger(__name__)


def default_directory() -> Path:
    """Return where classifiers are kept: `$VLADVA_CLIP_CACHE`, or the user's cache directory (XDG base directories)."""
    if directory := os.environ.get(DIRECTORY):
        return Path(directory).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vladva_clip" / "classifiers"


def key(model: VladvaCLIP, tokenizer: Any, texts: list[str], classes: int) -> str | None:
    """Return the name of a classifier: a sha256 of text weights and prompt, dtypes, tokenizer and texts in their order.

    None is for what can't be named: a LoRA that isn't merged, weights in 4 bits, and a tokenizer that isn't the
    package's own or has no `tokenizers` backend.
    """
    tokens = _tokenizer(tokenizer)
    if tokens is None or not _is_settled(model):
        return None
    digest = hashlib.sha256(f"{FORMAT} {model.embed_dim} {classes} {len(texts)} {tokens}".encode())
    digest.update(_weights(model))
    digest.update(hashlib.sha256(json.dumps(texts).encode()).digest())
    return digest.hexdigest()


def cached(name: str, build: Callable[[], torch.Tensor], directory: str | os.PathLike[str] | None) -> torch.Tensor:
    """Return the classifier of a key from disk, or build and keep it.

    A file that can't be read is said, and built anew; so is a directory that can't be written, for what was computed
    must not be lost to it.
    """
    path = (Path(directory) if directory else default_directory()) / f"{name}.safetensors"
    if path.is_file():
        try:
            return load_file(path)[TENSOR]
        except (SafetensorError, KeyError, OSError) as error:
            _log.warning("%s is no readable classifier (%s); it is built again", path, error)
    classifier = build()
    try:
        _write(path, classifier)
    except OSError as error:
        _log.warning("the classifier could not be kept in %s: %s; the next one is built again", path.parent, error)
    return classifier


def _write(path: Path, classifier: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save({TENSOR: classifier}))
        os.replace(scratch, path)
    except BaseException:  # Ctrl-C too: nothing half-written stays behind
        Path(scratch).unlink(missing_ok=True)
        raise


def _tokenizer(tokenizer: Any) -> str | None:
    backend = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
    if type(tokenizer) is not VladvaTokenizer or backend is None:
        return None
    settings = (tokenizer.context_length, tokenizer.eot_token_id, tokenizer.clean_fn.__qualname__)
    return f"{settings} {hashlib.sha256(backend.to_str().encode()).hexdigest()}"


def _is_settled(model: VladvaCLIP) -> bool:
    lvlm = model.visual.backbone.lvlm
    return not lora.has_lora(lvlm) and all(p.is_floating_point() and not p.is_meta for p in lvlm.parameters())


def _weights(model: VladvaCLIP) -> bytes:
    """Hash all that makes a text's features: the LLM's config and tensors, the embedding, template and soft prompt."""
    backbone, text = model.visual.backbone, model.text
    embedding = backbone.lvlm.get_input_embeddings().weight
    tensors = {"soft prompt": text.soft_prompt.weight, "embedding": embedding}
    tensors |= dict(backbone.trunk_module.named_parameters()) | dict(backbone.trunk_module.named_buffers())
    digest = hashlib.sha256(f"{text.prompts.text} {backbone.trunk_module.config.to_json_string()}".encode())
    for part in _digests(tensors.items()):
        digest.update(part)
    return digest.digest()


def _digests(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterable[bytes]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib lets other threads run
        return list(pool.map(_digest, tensors))


def _digest(item: tuple[str, torch.Tensor]) -> bytes:
    name, tensor = item
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(content.data)
    return digest.digest()
