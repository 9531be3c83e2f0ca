"""LoRA by PEFT: put a checkpoint's adapter into a backbone, merged once or left trainable."""

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn

from vladva_clip.config import nearest

_PREFIX = "base_model.model."  # of PEFT's file format: PeftModel.from_pretrained expects it


def inject(lvlm: nn.Module, lora_config: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Put a stored LoRA into the model, unmerged.

    Args:
        lvlm: transformers' model, changed in place.
        lora_config: the content of adapter_config.json.
        tensors: the content of adapter_model.safetensors.

    Raises:
        ValueError: not a LoRA, or tensors that don't fit the base (missing, unexpected and misshapen, gathered).
    """
    if lora_config.get("peft_type") != "LORA":
        raise ValueError(f"adapter_config.json says peft_type {lora_config.get('peft_type')!r}, expected 'LORA'")
    inject_adapter_in_model(_config(lora_config), lvlm)
    for name, parameter in lvlm.named_parameters():
        if "lora_" in name:  # in float32 over a bf16 base too: trained, stored and merged without loss
            parameter.data = parameter.data.float()
    _check_fit(_shapes(lvlm), {name.removeprefix(_PREFIX): tuple(t.shape) for name, t in tensors.items()})
    set_peft_model_state_dict(lvlm, {name.removeprefix(_PREFIX): t for name, t in tensors.items()})


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


def has_lora(lvlm: nn.Module) -> bool:
    """Whether unmerged LoRA layers are in the model."""
    return any(isinstance(module, LoraLayer) for module in lvlm.modules())


def _config(data: dict) -> LoraConfig:
    known = set(LoraConfig.__dataclass_fields__)
    if unknown := sorted(set(data) - known):
        raise ValueError(f"adapter_config.json has the unknown key {unknown[0]!r}; {nearest(unknown[0], known)}")
    if data.get("modules_to_save"):
        raise ValueError(f"adapter_config.json replaces whole modules ({data['modules_to_save']}); only LoRA is read")
    return LoraConfig(**{**data, "inference_mode": False})


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


def config_dict(lvlm: nn.Module, base_id: str, revision: str | None) -> dict:
    """Return the injected LoRA's config as PEFT writes it to adapter_config.json, with the base named."""
    data = next(iter(lvlm.peft_config.values())).to_dict()
    data |= {"base_model_name_or_path": base_id, "revision": revision, "inference_mode": True}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in data.items()}
