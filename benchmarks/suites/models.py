"""The encoder under evaluation: one of our models or open_clip's, and a fingerprint that identifies its features."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from vladva_clip.interface import precision_words
from vladva_clip.interface.addresses import without_addresses
from vladva_clip.sources import registry
from vladva_clip.sources.download import find_file
from vladva_clip.sources.locate import has_schema, locate
from vladva_clip.storage.adapter_files import MARKER, OPEN_CLIP_CONFIG
from vladva_clip.storage.config import read_json

# open_clip raises these, without the file's name, for wrong or truncated weights and without a connection
_UNLOADABLE = (
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    EOFError,
    OSError,
    UnpicklingError,
)


@dataclass(frozen=True)
class Encoder:
    """A loaded model.

    name, pretrained: as results name it. weights: fingerprint of all tensors and of the model's structure.
    training_free: a bare LVLM with hand-written prompts. base: the LVLM's id, None for other models.
    """

    name: str
    pretrained: str
    model: nn.Module
    preprocess: Callable[[Any], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    device: torch.device
    dtype: torch.dtype  # of the pixels that it takes
    weights: str
    training_free: bool = False
    base: str | None = None

    @property
    def preprocessing(self) -> str:
        """The image transform as text."""
        return _without_addresses(self.preprocess)


def find_pretrained(name: str, pretrained: str | None) -> str:
    """Return the tag that results will carry: our model's default one for None, "" for a source.

    Raises:
        ValueError: an unknown name or tag, a tag for a source, or no tag for one of open_clip's models; the valid
            ones are listed.
    """
    if has_schema(name):
        if pretrained:
            raise ValueError(
                f"found --pretrained {pretrained!r} with {name}, which already names its weights: leave it out"
            )
        return ""
    if name in registry.list_models():
        return registry.find_tag(name, None) if pretrained is None else _known_or_path(name, pretrained)
    import open_clip

    if name not in open_clip.list_models():
        raise registry.unknown(name, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        known = ", ".join([*tags, "or a file"])
        raise ValueError(f"{name} needs --pretrained, or its weights would be random; valid: {known}")
    if pretrained.lower().replace("-", "_") not in tags and pretrained not in tags and not Path(pretrained).is_file():
        known = ", ".join(tags) or "none"
        raise ValueError(f"{name} has no tag {pretrained!r}, and there is no such file; valid tags: {known}")
    return pretrained


def load(
    name: str, pretrained: str, device: torch.device, precision: str | None = None, cache_dir: str | None = None
) -> Encoder:
    """Load one of our models or open_clip's for inference.

    Args:
        name: from either `list_models()`, `local-dir:PATH` or `hf-hub:ORG/REPO`.
        pretrained: from `find_pretrained`.
        device: where the model goes.
        precision: as for `create_model`; None for the stored one (open_clip: fp32).
        cache_dir: the Hub's cache.

    Raises:
        ValueError: as `vladva_clip.create_model`, or open_clip can't load the weights.
    """
    if _is_ours(name, cache_dir):
        return _load_ours(name, pretrained, device, precision, cache_dir)
    return _load_open_clip(name, pretrained, device, precision or "fp32", cache_dir)


def in_hand(model: nn.Module, preprocess: Callable, tokenizer: Callable) -> Encoder:
    """Return the encoder of a loaded model, which has no name and takes float32 pixels.

    Args:
        model: with open_clip's `encode_image` and `encode_text`, on any device.
        preprocess: PIL image -> `(3, H, W)`.
        tokenizer: N texts -> `(N, L)`.
    """
    device = next(model.parameters()).device
    return Encoder("", "", model, preprocess, tokenizer, device, torch.float32, fingerprint(model, ""))


def fingerprint(model: nn.Module, description: str) -> str:
    """Return a sha256 over a model's structure, a description of it, and all its tensors with their dtypes."""
    digest = hashlib.sha256(f"{description} {_without_addresses(model)}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"


def _load_ours(
    name: str, pretrained: str, device: torch.device, precision: str | None, cache_dir: str | None
) -> Encoder:
    from vladva_clip import factory

    tag = pretrained or None
    model, preprocess = factory.create_model(name, tag, precision=precision, device=device, cache_dir=cache_dir)
    tokenizer = factory.get_tokenizer(name, context_length=model.context_length, cache_dir=cache_dir)
    source = locate(name, tag, cache_dir, weights=False)
    weights = fingerprint(model, json.dumps(model.config.to_dict(), sort_keys=True))
    training_free = not (source.is_adapter or source.is_export or source.profile)
    parts = (model, preprocess, tokenizer, device, torch.float32, weights, training_free, model.config.base.id)
    return Encoder(name, pretrained, *parts)


def _load_open_clip(name: str, pretrained: str, device: torch.device, precision: str, cache_dir: str | None) -> Encoder:
    import open_clip

    precision = precision_words.parse("precision", precision)  # open_clip would treat an unknown one as fp32
    options = {"precision": precision, "device": device, "cache_dir": cache_dir}
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained or None, **options)
    except _UNLOADABLE as error:
        what = f"{pretrained or 'the weights'} can't be loaded as {name} ({type(error).__name__}: {error})"
        raise ValueError(f"{what}: other weights, a truncated file, or no connection") from error
    model.eval()
    tokenizer = open_clip.get_tokenizer(name, cache_dir=cache_dir)
    dtype = open_clip.get_input_dtype(precision) or torch.float32
    weights = fingerprint(model, json.dumps(_open_clip_config(name, cache_dir), sort_keys=True))
    return Encoder(name, pretrained, model, preprocess, tokenizer, device, dtype, weights)


def _is_ours(name: str, cache_dir: str | None) -> bool:
    """Whether a model is ours. A source with open_clip's config and no marker is not; a bare LVLM has neither."""
    if not has_schema(name):
        return name in registry.list_models()
    path = find_file(name, OPEN_CLIP_CONFIG, cache_dir)
    return path is None or MARKER in read_json(path)


def _open_clip_config(name: str, cache_dir: str | None) -> Any:
    import open_clip

    if has_schema(name):
        return read_json(find_file(name, OPEN_CLIP_CONFIG, cache_dir))
    return open_clip.get_model_config(name)


def _known_or_path(name: str, pretrained: str) -> str:
    return pretrained if Path(pretrained).is_dir() else registry.find_tag(name, pretrained)


def _without_addresses(value: Any) -> str:
    return without_addresses(repr(value))
