"""The patch for clip_benchmark: adds the model type `vladva`, and makes its type `open_clip` load our models."""

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from vladva_clip.integrations.open_clip import is_ours, rebind
from vladva_clip.interface.devices import resolve
from vladva_clip.sources import registry
from vladva_clip.sources.locate import has_schema
from vladva_clip.storage.adapter_files import MARKER

# clip_benchmark's default for --pretrained, a tag of open_clip's ViT-B-32
DEFAULT_PRETRAINED = "laion400m_e32"
MODEL_TYPE = "vladva"
_log = logging.getLogger(__name__)
_warned: set[str] = set()


def patch(models: ModuleType) -> None:
    """Patch `clip_benchmark.models` once it has run. Its command line offers the list that is changed in place here.

    Raises:
        RuntimeError: open_clip doesn't know our names, for example because one is its own; nothing is changed then.
    """
    if MODEL_TYPE in models.TYPE2FUNC:
        return
    if not hasattr(sys.modules["open_clip.factory"].create_model, MARKER):
        raise RuntimeError("open_clip doesn't know them: an earlier warning says why")
    stock = models.TYPE2FUNC["open_clip"]
    if not hasattr(stock, MARKER):  # it is already ours if the module is reloaded
        models.TYPE2FUNC["open_clip"] = wrapped = _wrap(stock)
        rebind({id(stock): wrapped})
    models.TYPE2FUNC[MODEL_TYPE] = load
    models.MODEL_TYPES.append(MODEL_TYPE)


def load(
    model_name: str,
    pretrained: str | None = None,
    cache_dir: str | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Any, Any, Any]:
    """Load one of our models as clip_benchmark's loaders do.

    Args:
        model_name: as for `vladva_clip.create_model`.
        pretrained: a tag; clip_benchmark's own default means the model's default tag, with a warning.
        cache_dir: the Hub's cache.
        device: where the model goes (see `devices.resolve`).

    Returns:
        The model, its image transform and its tokenizer.

    Raises:
        ValueError: as `vladva_clip.create_model`; lists the valid tags.
    """
    from vladva_clip import factory

    device = resolve(device)
    tag = _tag(model_name, pretrained)
    _warn_of_slashes(model_name, tag)
    model, transform = factory.create_model(model_name, tag, device=device, cache_dir=cache_dir)
    tokenizer = factory.get_tokenizer(model_name, context_length=model.context_length, cache_dir=cache_dir)
    return model, transform, tokenizer


def _wrap(stock: Callable) -> Callable:
    signature = inspect.signature(stock)

    @functools.wraps(stock)
    def load_open_clip(*args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        ours = is_ours(call.arguments["model_name"], call.arguments["cache_dir"])
        return load(**call.arguments) if ours else stock(*args, **kwargs)

    setattr(load_open_clip, MARKER, True)
    return load_open_clip


def _tag(model_name: str, pretrained: str | None) -> str | None:
    if has_schema(model_name):
        return None
    if pretrained != DEFAULT_PRETRAINED or pretrained in registry.find(model_name).tags:
        return pretrained
    tag = registry.find_tag(model_name, None)
    _warn_once(
        f"{model_name} has no tag {pretrained!r}, which is clip_benchmark's default; the model's default {tag!r} is "
        f"evaluated. clip_benchmark's results will still say {pretrained!r}: pass --pretrained {tag}"
    )
    return tag


def _warn_of_slashes(model_name: str, pretrained: str | None) -> None:
    for value in (model_name, pretrained or ""):
        if "/" in value:
            _warn_once(
                f"clip_benchmark puts {value!r} into its results' file name, where '/' makes saving fail after the "
                "evaluation: pass --output, or use a name without '/' (vladva_clip.register, VLADVA_CLIP_MODELS)"
            )


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _log.warning(message)
