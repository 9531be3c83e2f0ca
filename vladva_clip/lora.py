"""LoRA by PEFT: put a checkpoint's adapter into a backbone, merged once or left trainable."""

import math
import re
from collections import Counter

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn

from vladva_clip.config import nearest

_PREFIX = "base_model.model."  # of PEFT's file format: PeftModel.from_pretrained expects it
# what replaces weights of the base, repeats its layers, or depends on the tokens and so can't be merged
_BEYOND_LORA = (
    *("modules_to_save", "trainable_token_indices", "layer_replication", "alora_invocation_tokens", "arrow_config"),
    "megatron_config",  # with it PEFT imports whatever module megatron_core names
)
# what PEFT raises for values that it checks late or not at all (NotImplementedError is a RuntimeError)
_PEFT_ERRORS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError, re.error)


def inject(lvlm: nn.Module, lora_config: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Put a stored LoRA into the model, unmerged.

    Args:
        lvlm: transformers' model, changed in place.
        lora_config: the content of adapter_config.json.
        tensors: the content of adapter_model.safetensors.

    Raises:
        ValueError: not a LoRA, settings that PEFT can't use, a target whose weight has another use, or tensors that
            don't fit the base (missing, unexpected and misshapen, gathered).
    """
    settings = _settings(lora_config)
    try:
        inject_adapter_in_model(LoraConfig(**settings), lvlm)
    except _PEFT_ERRORS as error:
        raise ValueError(
            f"PEFT can't put the LoRA of adapter_config.json into this base ({type(error).__name__}: {error}); "
            "get the file again, or the base that it was trained on"
        ) from error
    _refuse_shared(lvlm)
    _in_float32(lvlm)
    _check_fit(_shapes(lvlm), {name.removeprefix(_PREFIX): tuple(t.shape) for name, t in tensors.items()})
    set_peft_model_state_dict(lvlm, {name.removeprefix(_PREFIX): t for name, t in tensors.items()})


def start(lvlm: nn.Module, trunk: nn.Module, rank: int, alpha: int, dropout: float = 0.0) -> None:
    """Put a new LoRA on every linear layer of the LLM, unmerged and in float32; it changes nothing until it is trained.

    Args:
        lvlm: transformers' model, changed in place.
        trunk: the LLM within it, without its head.
        rank, alpha, dropout: PEFT's `r`, `lora_alpha` and `lora_dropout`; A is drawn from torch's generator.

    Raises:
        ValueError: there is a LoRA already.
    """
    if has_lora(lvlm):
        raise ValueError("the model has a LoRA already; it is trained on as it is, a second one is not put over it")
    settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=_linear_layers(lvlm, trunk))
    inject_adapter_in_model(settings, lvlm)
    _in_float32(lvlm)


def _linear_layers(lvlm: nn.Module, trunk: nn.Module) -> str:
    """Return PEFT's pattern for the linear layers of the LLM's blocks."""
    (path,) = [name for name, module in lvlm.named_modules() if module is trunk]
    leaves = {name.rpartition(".")[2] for name, module in trunk.layers.named_modules() if isinstance(module, nn.Linear)}
    return rf"{re.escape(path)}\.layers\.\d+\..*\.({'|'.join(sorted(leaves))})"


def _in_float32(lvlm: nn.Module) -> None:
    for name, parameter in lvlm.named_parameters():
        if is_lora(name):  # over a bf16 base too: trained, stored and merged without loss
            parameter.data = parameter.data.float()


def extract(lvlm: nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's LoRA tensors under the names of PEFT's file format; empty without LoRA."""
    if not has_lora(lvlm):
        return {}
    return {_PREFIX + name: t.detach().cpu().clone() for name, t in _state(lvlm).items()}


def merge(lvlm: nn.Module) -> None:
    """Add each LoRA to its weight, once and for good, and take the LoRA layers out; in place."""
    for name, module in list(lvlm.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(lvlm.get_submodule(parent), child, module.get_base_layer())
    if hasattr(lvlm, "peft_config"):
        del lvlm.peft_config


def stand_in(lvlm: nn.Module) -> None:
    """Give a model on the meta device matrices of one element each, so that `inject` puts real LoRA tensors over it.

    PEFT moves a LoRA to its base's device, and on `meta` it would be lost. See `merged` for the base's weights.
    """
    for module in lvlm.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            one = torch.zeros(1 if parameter.ndim > 1 else parameter.shape, dtype=parameter.dtype)
            setattr(module, name, nn.Parameter(one.expand(parameter.shape), requires_grad=False))


def targets(lvlm: nn.Module) -> dict[str, LoraLayer]:
    """Return the layers that carry a LoRA, by the name of the module they replace."""
    return {name: module for name, module in lvlm.named_modules() if isinstance(module, LoraLayer)}


def merged(layer: LoraLayer, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Merge one layer whose base is a stand-in, as `merge` would with the model in memory.

    Args:
        layer: one of `targets`, which is left as it was.
        parameters: all of its base's, by name ("weight", "bias"), in the dtype to merge in.

    Returns:
        The same names with merged tensors; the given ones may have been changed.

    Raises:
        ValueError: the sum is not finite (PEFT's check).
    """
    base = layer.get_base_layer()
    before = dict(base.named_parameters())
    for name, tensor in parameters.items():
        setattr(base, name, nn.Parameter(tensor, requires_grad=False))
    try:
        layer.merge(safe_merge=True)
        return {name: getattr(base, name).data for name in parameters}
    finally:
        layer.merged_adapters.clear()
        for name, parameter in before.items():
            setattr(base, name, parameter)


def is_lora(name: str) -> bool:
    """Whether a parameter's name is that of a LoRA, not of the base."""
    return "lora_" in name


def has_lora(lvlm: nn.Module) -> bool:
    """Whether unmerged LoRA layers are in the model."""
    return any(isinstance(module, LoraLayer) for module in lvlm.modules())


def _settings(data: dict) -> dict:
    """Check adapter_config.json and return it without what a later PEFT wrote and left unused."""
    if data.get("peft_type") != "LORA":
        raise ValueError(f"adapter_config.json says peft_type {data.get('peft_type')!r}, expected 'LORA'")
    known = set(LoraConfig.__dataclass_fields__)
    if unknown := sorted(name for name in set(data) - known if data[name] not in (None, False, "", [], {})):
        raise ValueError(f"adapter_config.json has the unknown key {unknown[0]!r}; {nearest(unknown[0], known)}")
    for name in _BEYOND_LORA:
        if data.get(name):
            raise ValueError(f"adapter_config.json asks for {name} ({data[name]!r:.80}); only plain LoRA is read")
    for name, (expected, holds) in _CHECKS.items():
        if name in data and not holds(data[name]):
            raise ValueError(f"adapter_config.json: {name} is {data[name]!r:.80}, expected {expected}")
    return {name: value for name, value in data.items() if name in known} | {"inference_mode": False}


def _is_rank(value: object) -> bool:
    return type(value) is int and value > 0


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_modules(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


_CHECKS = {  # the settings that decide shapes and sizes of a LoRA: what is expected, and whether a value is that
    "r": ("a positive whole number", _is_rank),
    "lora_alpha": ("a finite number", _is_number),
    "lora_dropout": ("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1),
    "bias": ("none, all or lora_only", lambda value: value in ("none", "all", "lora_only")),
    "target_modules": ("a pattern or a list of names", _are_modules),
    "exclude_modules": ("a pattern, a list of names or null", lambda value: value is None or _are_modules(value)),
    "rank_pattern": (
        "an object of positive whole numbers",
        lambda value: isinstance(value, dict) and all(map(_is_rank, value.values())),
    ),
    "alpha_pattern": (
        "an object of finite numbers",
        lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    ),
    **{name: ("true or false", lambda value: isinstance(value, bool)) for name in ("use_rslora", "use_dora")},
    "fan_in_fan_out": ("true or false", lambda value: isinstance(value, bool)),
}


def _refuse_shared(lvlm: nn.Module) -> None:
    """Refuse a LoRA on a weight that has a second use (a head tied to the embedding): merging would change that too."""
    uses = Counter(id(parameter) for _, parameter in lvlm.named_parameters(remove_duplicate=False))
    for name, module in lvlm.named_modules():
        if isinstance(module, LoraLayer) and any(
            uses[id(weight)] > 1 for weight in module.get_base_layer().parameters()
        ):
            raise ValueError(
                f"adapter_config.json targets {name}, whose weight this base shares with another module (its head is "
                "tied to its embedding): merged, the LoRA would change both. Train it without that target"
            )


def _state(lvlm: nn.Module) -> dict[str, torch.Tensor]:
    # by default PEFT asks the Hub whether the base's vocabulary was changed
    return get_peft_model_state_dict(lvlm, save_embedding_layers=False)


def _shapes(lvlm: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _state(lvlm).items()}


def _check_fit(expected: dict[str, tuple], found: dict[str, tuple]) -> None:
    faults = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "of another shape": sorted(name for name in set(expected) & set(found) if expected[name] != found[name]),
    }
    if any(faults.values()):
        lines = [
            f"{len(names)} {kind}, such as {names[0]} (found {found.get(names[0])}, expected {expected.get(names[0])})"
            for kind, names in faults.items()
            if names
        ]
        raise ValueError(f"the LoRA does not fit this base: {'; '.join(lines)}. Was it trained on another base?")


def base_parameters(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those of a stored LoRA's tensors that replace the base's own (biases), by the base's names."""
    named = {name.removeprefix(_PREFIX).replace(".base_layer.", "."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if not is_lora(name)}


def config_dict(lvlm: nn.Module, base_id: str, revision: str | None) -> dict:
    """Return the injected LoRA's config as PEFT writes it to adapter_config.json, with the base named."""
    data = next(iter(lvlm.peft_config.values())).to_dict()
    data |= {"base_model_name_or_path": base_id, "revision": revision, "inference_mode": True}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in data.items()}
