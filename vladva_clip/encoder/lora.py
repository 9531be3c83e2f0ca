"""LoRA through PEFT: put an adapter's LoRA into a backbone, merged once or left trainable."""

import re
from collections import Counter
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn

from vladva_clip.encoder import lora_settings

_PREFIX = "base_model.model."  # of names in PEFT's files; PeftModel.from_pretrained expects it
# errors that PEFT raises for values that it checks late or not at all (NotImplementedError is a RuntimeError)
_PEFT_ERRORS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError, re.error)


def check_fit(lvlm: nn.Module, lora_config: dict, shapes: dict[str, tuple[int, ...]]) -> None:
    """Check a stored LoRA against the base's architecture, before any of its tensors is read.

    Args:
        lvlm: transformers' model on the meta device; it gets LoRA layers without memory.
        lora_config: the content of adapter_config.json.
        shapes: name -> shape of the tensors in adapter_model.safetensors.

    Raises:
        ValueError: as `inject`.
    """
    shapes = {name.removeprefix(_PREFIX): shape for name, shape in shapes.items()}
    _put_layers(lvlm, lora_config, shapes)
    _check_names(_shapes(lvlm), shapes)


def inject(lvlm: nn.Module, lora_config: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Put a stored LoRA into the model, unmerged. Only its tensors matter, not how they were once initialized.

    Args:
        lvlm: transformers' model, changed in place.
        lora_config: the content of adapter_config.json.
        tensors: the content of adapter_model.safetensors.

    Raises:
        ValueError: not a LoRA, settings that PEFT can't use, a target whose weight is shared with another module, or
            tensors that don't fit the base; the message counts the missing, unexpected and misshapen ones.
    """
    stored = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    _put_layers(lvlm, lora_config, shapes)
    _check_names(_shapes(lvlm), shapes)
    _allocate(lvlm, next(parameter.device for parameter in lvlm.parameters() if not parameter.is_meta))
    set_peft_model_state_dict(lvlm, stored)
    lora_settings.warn_of_initialization(lora_config)


def _put_layers(lvlm: nn.Module, lora_config: dict, shapes: dict[str, tuple[int, ...]]) -> None:
    """Put LoRA layers into the model wherever there are tensors for them, still on the meta device."""
    chosen = lora_settings.of_tensors(lora_settings.lora_settings(lora_config), shapes)
    try:
        settings = LoraConfig(**chosen)
        settings.as_stored = _stated(lora_config, shapes)  # used when the LoRA is saved again
        inject_adapter_in_model(settings, lvlm, low_cpu_mem_usage=True)
    except _PEFT_ERRORS as error:
        raise ValueError(
            f"PEFT can't put the LoRA of adapter_config.json into this base ({type(error).__name__}: {error}); "
            "get the file again, or use the base that it was trained on"
        ) from error
    _refuse_shared(lvlm)


def _stated(lora_config: dict, shapes: dict[str, tuple[int, ...]]) -> LoraConfig:
    """Return the admitted settings of adapter_config.json, unchanged."""
    settings = LoraConfig(**lora_settings.with_quick_targets(lora_settings.lora_settings(lora_config), shapes))
    settings.init_lora_weights = lora_settings.initialization(lora_config)
    return settings


def _allocate(lvlm: nn.Module, device: torch.device) -> None:
    """Allocate the LoRA's tensors, in float32 even over a bf16 base: trained, stored and merged without loss."""
    for module in lvlm.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                empty = torch.empty(parameter.shape, dtype=torch.float32, device=device)
                module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)


def start(lvlm: nn.Module, trunk: nn.Module, rank: int, alpha: int, dropout: float = 0.0) -> None:
    """Put a new LoRA on every linear layer of the LLM, unmerged and in float32. Until trained, it changes nothing.

    Args:
        lvlm: transformers' model, changed in place.
        trunk: the LLM within it, without its head.
        rank, alpha, dropout: PEFT's `r`, `lora_alpha` and `lora_dropout`; A is drawn from torch's generator.

    Raises:
        ValueError: the model already has a LoRA.
    """
    if has_lora(lvlm):
        raise ValueError("the model already has a LoRA; continue training it, a second one can't be added")
    settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=_linear_layers(lvlm, trunk))
    inject_adapter_in_model(settings, lvlm)
    in_float32(lvlm)


def _linear_layers(lvlm: nn.Module, trunk: nn.Module) -> str:
    """Return PEFT's pattern for the linear layers of the LLM's blocks."""
    (path,) = [name for name, module in lvlm.named_modules() if module is trunk]
    leaves = {name.rpartition(".")[2] for name, module in trunk.layers.named_modules() if isinstance(module, nn.Linear)}
    return rf"{re.escape(path)}\.layers\.\d+\..*\.({'|'.join(sorted(leaves))})"


def in_float32(lvlm: nn.Module) -> None:
    """Make a model's LoRA float32, in place."""
    for name, parameter in lvlm.named_parameters():
        if is_lora(name):  # even over a bf16 base: trained, stored and merged without loss
            parameter.data = parameter.data.float()


def extract(lvlm: nn.Module, adapter: str = "default") -> dict[str, torch.Tensor]:
    """Return a model's LoRA tensors under the names of PEFT's file format, float64 reduced to float32."""
    tensors = {_PREFIX + _unwrapped(name): t.detach().cpu().clone() for name, t in _state(lvlm, adapter).items()}
    return {name: t.float() if t.dtype == torch.float64 else t for name, t in tensors.items()}


def merge(lvlm: nn.Module) -> None:
    """Add each LoRA to its weight permanently and remove the LoRA layers, in place.

    Raises:
        ValueError: PEFT can't merge the LoRA (a bias over a layer that has none), or the sum is not finite.
    """
    for name, module in list(lvlm.named_modules()):
        if isinstance(module, LoraLayer):
            _merge(module, name)
            parent, _, child = name.rpartition(".")
            setattr(lvlm.get_submodule(parent), child, module.get_base_layer())
    if hasattr(lvlm, "peft_config"):
        del lvlm.peft_config


def _merge(layer: LoraLayer, name: str) -> None:
    try:
        with torch.autocast(next(layer.parameters()).device.type, enabled=False):  # autocast would round the product
            layer.merge(safe_merge=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"PEFT can't merge the LoRA on {name} ({error}); load the adapter with merge_lora=False"
        ) from error


def stand_in(lvlm: nn.Module) -> None:
    """Replace a meta model's weights by one-element stand-ins, so that `inject` puts real LoRA tensors over it.

    PEFT moves a LoRA to its base's device, and on `meta` its values would be lost. See `merged` for the base's weights.
    """
    for module in lvlm.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            one = torch.zeros(1 if parameter.ndim > 1 else parameter.shape, dtype=parameter.dtype)
            setattr(module, name, nn.Parameter(one.expand(parameter.shape), requires_grad=False))


def targets(lvlm: nn.Module) -> dict[str, LoraLayer]:
    """Return the layers with a LoRA, by the name of the module that they replace."""
    return {own_name(name): module for name, module in lvlm.named_modules() if isinstance(module, LoraLayer)}


def merged(layer: LoraLayer, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Merge one layer whose base is a stand-in, as `merge` would with the model in memory.

    Args:
        layer: one of `targets`; it is left unchanged.
        parameters: all parameters of its base layer, by name ("weight", "bias"), in the dtype to merge in.

    Returns:
        The same names with merged tensors; the given tensors may have been changed.

    Raises:
        ValueError: the sum is not finite (PEFT's check).
    """
    base = layer.get_base_layer()
    before = dict(base.named_parameters())
    for name, tensor in parameters.items():
        setattr(base, name, nn.Parameter(tensor, requires_grad=False))
    try:
        _merge(layer, type(base).__name__)
        return {name: getattr(base, name).data for name in parameters}
    finally:
        layer.merged_adapters.clear()
        for name, parameter in before.items():
            setattr(base, name, parameter)


def is_lora(name: str) -> bool:
    """Whether a parameter's name belongs to a LoRA rather than the base."""
    return "lora_" in name


def own_name(name: str) -> str:
    """Return a tensor's or module's name in transformers' model, as it is without LoRA and torch.compile."""
    return _unwrapped(name).replace(".base_layer.", ".")


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")  # which torch.compile(layer) adds


def has_lora(lvlm: nn.Module) -> bool:
    """Whether the model has unmerged LoRA layers."""
    return any(isinstance(module, LoraLayer) for module in lvlm.modules())


def _refuse_shared(lvlm: nn.Module) -> None:
    """Refuse a LoRA on a shared weight (a head tied to the embedding): merging would change the other module too."""
    uses = Counter(id(parameter) for _, parameter in lvlm.named_parameters(remove_duplicate=False))
    for name, module in lvlm.named_modules():
        if isinstance(module, LoraLayer) and any(
            uses[id(weight)] > 1 for weight in module.get_base_layer().parameters()
        ):
            raise ValueError(
                f"adapter_config.json targets {name}, whose weight this base shares with another module (its head is "
                "tied to its embedding): merging the LoRA would change both. Train it without that target"
            )


def _state(lvlm: nn.Module, adapter: str = "default") -> dict[str, torch.Tensor]:
    # save_embedding_layers: by default PEFT asks the Hub whether the base's vocabulary was changed
    return get_peft_model_state_dict(lvlm, adapter_name=adapter, save_embedding_layers=False)


def _shapes(lvlm: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _state(lvlm).items()}


def _check_names(expected: dict[str, tuple], found: dict[str, tuple]) -> None:
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
    """Return the tensors of a stored LoRA that replace the base's own (biases), under the base's names."""
    named = {own_name(name.removeprefix(_PREFIX)): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if not is_lora(name)}


def config_dict(lvlm: nn.Module, base_id: str, revision: str | None) -> dict:
    """Return the injected LoRA's config as PEFT writes it to adapter_config.json, including the base's id."""
    return written_config(next(iter(lvlm.peft_config.values())), base_id, revision)


def written_config(settings: LoraConfig, base_id: str, revision: str | None) -> dict:
    """Return one adapter's config as PEFT writes it to adapter_config.json, including the base's id."""
    return _written(getattr(settings, "as_stored", settings), base_id, revision)


def stored_config(
    lora_config: dict, tensors: dict[str, torch.Tensor], base_id: str, revision: str | None
) -> dict[str, Any]:
    """Return a stored adapter_config.json as PEFT would write it again: its admitted settings, and the base's id."""
    shapes = {name.removeprefix(_PREFIX): tuple(tensor.shape) for name, tensor in tensors.items()}
    return _written(_stated(lora_config, shapes), base_id, revision)


def _written(settings: LoraConfig, base_id: str, revision: str | None) -> dict:
    data = settings.to_dict() | {"base_model_name_or_path": base_id, "revision": revision, "inference_mode": True}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in data.items()}
