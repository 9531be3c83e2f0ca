"""Whether foreign code takes part in the text side: hooks, patches, modules of other packages.

Such code may depend on a token's position in its row, so rows must not be cut or shared then.
"""

import types
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from vladva_clip.encoder.backbones.base import Backbone

PACKAGES = ("torch", "transformers", "vladva_clip")  # their classes and functions are identified by name
NO_MATTER = frozenset({"gradient_checkpointing", "_gradient_checkpointing_func", "_output_capturing_hooks_installed"})
_WRAPPERS = ("peft", "bitsandbytes")  # their classes treat tokens independently, but can't be identified
# their hooks change no values: they capture outputs, and make them require gradients for checkpointing
_HARMLESS = ("transformers.utils.output_capturing", "transformers.modeling_utils")


def is_altered(tower: nn.Module, backbone: Backbone) -> bool:
    """Whether foreign code (not the package's or transformers') takes part in running a text tower's rows."""
    parts = [tower, *backbone.trunk_module.modules()]
    return (
        any(map(is_overridden, (backbone, backbone.lvlm, *parts)))
        or any(map(_has_hooks, parts))
        or not all(is_of(part, (*PACKAGES, *_WRAPPERS)) for part in parts)
        or bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)
    )


def is_overridden(part: Any, but: str = "") -> bool:
    """Whether an object overrides a function of its class, as after a patch or `compile()`."""
    own = ((name, value) for name, value in vars(part).items() if name not in {but, *NO_MATTER})
    return any(callable(value) and hasattr(type(part), name) and not _is_put_back(part, name) for name, value in own)


def _is_put_back(part: Any, name: str) -> bool:
    """Whether the override is the class's own function: transformers 5.0 restores a patched `forward` that way."""
    own = vars(part)[name]
    return getattr(own, "__self__", None) is part and getattr(own, "__func__", None) is getattr(type(part), name)


def _has_hooks(module: nn.Module) -> bool:
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    return any(getattr(hook, "__module__", None) not in _HARMLESS for hook in hooks)


def is_of(thing: Any, packages: tuple[str, ...]) -> bool:
    kind = thing if isinstance(thing, types.FunctionType) else type(thing)
    return kind.__module__.split(".")[0] in packages
