"""Identify a model and tokenizer by everything that decides a text's features, or return None if that is impossible.

The identity covers weights, module types and their settings. Nothing is cached between two calls: any change in place
gives a new identity. A model with custom code (a hook, a patched method, a new class, a compiler's backend) has no
identity, since only running the code shows what it does.
"""

import enum
import hashlib
import os
import types
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from vladva_clip.encoder import alterations
from vladva_clip.encoder.alterations import NO_MATTER, PACKAGES, is_of, is_overridden
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.encoder.towers import TextTower
from vladva_clip.model import VladvaCLIP
from vladva_clip.storage.config import PromptConfig

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.Size,
    enum.Enum,
    PromptConfig,
)


class _Unnamed(Exception):
    """Some part can't be identified."""


def is_altered(model: VladvaCLIP) -> bool:
    """Whether foreign code (not the package's or transformers') takes part in `model.encode_text`.

    Such code may depend on a token's position in its row, so only `encode_text` itself is right then.
    """
    return (
        type(model).encode_text is not VladvaCLIP.encode_text
        or type(model.text) is not TextTower
        or is_overridden(model, but="_compiled_call_impl")  # set by compiling `model(...)`, which is not used here
        or alterations.is_altered(model.text, model.visual.backbone)
    )


def of_model(model: VladvaCLIP) -> bytes | None:
    """Return a sha256 of everything that decides a text's features in a model that `is_altered` accepts.

    Returns None if that is impossible: an unmerged LoRA, quantized or packed weights, modules of other packages.
    """
    text, trunk = model.text, model.visual.backbone.trunk_module
    try:
        lines = [f"{model.embed_dim} {text.output_dim} {text.prompts.text} {text.encoding} {_name(trunk.config, None)}"]
        if (rewriter := text.prompts.rewriter) is not None:  # the tokenizer of its own is the model's
            lines.append(f"{rewriter.written} {rewriter.place}")
        lines += [f"{name} {_module(module, trunk.config)}" for name, module in trunk.named_modules()]
        tensors = {"soft prompt": text.soft_prompt.weight}
        tensors |= dict(trunk.named_parameters()) | dict(trunk.named_buffers())
        digest = hashlib.sha256("\n".join(lines).encode())
        for part in _digests(tensors.items()):
            digest.update(part)
    except _Unnamed:
        return None
    return digest.digest()


def of_tokenizer(tokenizer: Any) -> str | None:
    """Return a tokenizer's settings and sha256; None if it is patched or not the package's own."""
    inner = getattr(tokenizer, "tokenizer", None)
    backend = getattr(inner, "backend_tokenizer", None)
    if type(tokenizer) is not VladvaTokenizer or backend is None or not is_of(inner, PACKAGES):
        return None
    if is_overridden(tokenizer) or is_overridden(inner):
        return None
    try:
        settings = {name: _name(value, None) for name, value in vars(tokenizer).items() if name != "tokenizer"}
    except _Unnamed:
        return None
    return f"{sorted(settings.items())} {hashlib.sha256(backend.to_str().encode()).hexdigest()}"


def _module(module: nn.Module, config: PreTrainedConfig) -> str:
    """Identify a module by its class and settings."""
    if not is_of(module, PACKAGES):
        raise _Unnamed
    own = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE | NO_MATTER}
    settings = sorted((name, _name(value, config)) for name, value in own.items())
    return f"{type(module).__module__}.{type(module).__qualname__} {settings}"


def _name(value: Any, config: PreTrainedConfig | None) -> str:
    """Identify a setting; `config` is one that is already covered."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, list | tuple):
        return str([_name(one, config) for one in value])
    if isinstance(value, set | frozenset):
        return str(sorted(_name(one, config) for one in value))
    if isinstance(value, dict):
        return str(sorted((_name(key, config), _name(one, config)) for key, one in value.items()))
    if isinstance(value, PreTrainedConfig):
        return "config" if value is config else f"{value.to_json_string()} {value._attn_implementation}"
    if isinstance(value, torch.Tensor):
        return _digest(("", value)).hex()
    if isinstance(value, types.FunctionType) and _is_known(value):
        return f"{value.__module__}.{value.__qualname__}"
    raise _Unnamed


def _is_known(function: types.FunctionType) -> bool:
    """Whether a function is defined at the top of a known package, not made by another function."""
    made = function.__closure__ is not None or "<" in function.__qualname__
    return not made and is_of(function, (*PACKAGES, "open_clip"))


def _digests(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterable[bytes]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib releases the GIL
        return list(pool.map(_digest, tensors))


def _digest(item: tuple[str, torch.Tensor]) -> bytes:
    name, tensor = item
    if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.is_meta or tensor.is_quantized:
        raise _Unnamed
    if isinstance(tensor, nn.Parameter) and not tensor.is_floating_point():  # packed 4-bit weights
        raise _Unnamed
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(content.data)
    return digest.digest()
