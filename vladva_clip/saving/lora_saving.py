"""The LoRA in a model, whoever added or changed it -> the PEFT config and tensors that compute the same."""

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from vladva_clip.encoder import lora, lora_settings

_log = logging.getLogger(__name__)
_BY_PATTERN = ("exclude_modules", "layers_to_transform", "layers_pattern")


@dataclass(frozen=True)
class LoraState:
    """A LoRA as stored: adapter_config.json and its tensors. `merged`: it is in the base's weights now."""

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    merged: bool


def read(model: nn.Module, lvlm: nn.Module, base_id: str, revision: str | None) -> LoraState | None:
    """Return the LoRA that affects the features, at its actual strength; None if there is no LoRA.

    Args:
        model: the whole model; PEFT may have changed any part of it.
        lvlm: transformers' model within it; names in the result are relative to it.
        base_id, revision: of the base, for the config.

    Raises:
        ValueError: PEFT added something other than a LoRA in the LVLM; no LoRA adapter or several of them are active;
            or one is active or merged in some layers only.
    """
    _refuse_other_tuners(model, lvlm)
    layers = lora.targets(lvlm)
    if not layers:
        return None
    name = _active_adapter(layers)
    every = {adapter for layer in layers.values() for adapter in layer.r}
    layers = {path: layer for path, layer in layers.items() if name in layer.r}
    settings, is_lvlms = _settings(model, lvlm, name)
    config = lora.written_config(settings, base_id, revision)
    config = config if is_lvlms else {**config, "target_modules": sorted(layers), **dict.fromkeys(_BY_PATTERN)}
    config = _with_strengths(config, {path: (layer.r[name], layer.scaling[name]) for path, layer in layers.items()})
    with _owning(lvlm, dict.fromkeys(every, settings)):
        return LoraState(config, lora.extract(lvlm, name), next(iter(layers.values())).merged)


def _refuse_other_tuners(model: nn.Module, lvlm: nn.Module) -> None:
    if isinstance(lvlm, PeftModel):
        raise ValueError(
            "model.visual.backbone.lvlm is a PeftModel, in which the towers don't find the layers; assign its "
            "get_base_model() instead, which includes the LoRA"
        )
    inside = set(lvlm.modules())
    for name, module in model.named_modules():
        is_plain = isinstance(module, LoraLayer) and type(module).__module__.startswith("peft.tuners.lora.")
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) and not (is_plain and module in inside):
            raise ValueError(
                f"{name} is PEFT's {type(module).__module__}.{type(module).__name__}; an adapter holds only soft "
                "prompts and a plain LoRA on the LVLM's layers. Save it with PEFT, or remove it"
            )


def _active_adapter(layers: dict[str, LoraLayer]) -> str:
    present = sorted({name for layer in layers.values() for name in layer.r})
    active = sorted({name for layer in layers.values() for name in _active(layer)})
    if len(active) != 1:
        found = f"{', '.join(active)} are all active" if active else "none of them is active (they are disabled)"
        raise ValueError(
            f"the model has the LoRA adapters {', '.join(present)}, and {found}, but only one can be saved. Activate "
            "one (set_adapter, enable_adapters), or delete them all to save only the soft prompts"
        )
    (name,) = active
    _refuse_partly(layers, name)
    if len(present) > 1:
        _log.warning("of the LoRA adapters %s, only the active one is saved: %s", ", ".join(present), name)
    return name


def _active(layer: LoraLayer) -> list[str]:
    """Return the adapters that contribute to a layer's output, by the same rule as its `forward`."""
    if layer.disable_adapters:
        return []
    return [name for name in layer.merged_adapters or layer.active_adapters if name in layer.r]


def _refuse_partly(layers: dict[str, LoraLayer], name: str) -> None:
    own = {path: layer for path, layer in layers.items() if name in layer.r}
    off = [path for path, layer in own.items() if name not in _active(layer)]
    merged = [path for path, layer in own.items() if layer.merged]
    if off or len(merged) not in (0, len(own)):
        what, some = ("off", off) if off else ("merged", merged)
        raise ValueError(
            f"the LoRA {name} is {what} in {len(some)} of its {len(own)} layers, such as {some[0]}; to be saved, it "
            "must be on in all. Treat all layers alike (enable_adapters, set_adapter, unmerge)"
        )


def _settings(model: nn.Module, lvlm: nn.Module, name: str) -> tuple[LoraConfig, bool]:
    """Return a LoRA's config, and whether its names are relative to the LVLM, where PEFT put it."""
    owners = [module for module in model.modules() if name in (vars(module).get("peft_config") or {})]
    if not owners:
        raise ValueError(f"the LoRA {name} has no config: the model has lost PEFT's peft_config; inject the LoRA again")
    return owners[0].peft_config[name], owners == [lvlm]


def _with_strengths(config: dict[str, Any], actual: dict[str, tuple[int, float]]) -> dict[str, Any]:
    """Return the config with the layers' actual ranks and scalings; unchanged if it states them already.

    Patterns that loading would refuse are replaced by the layers' names.
    """
    by_rank = math.sqrt if config["use_rslora"] else float
    found = {path: (rank, scaling * by_rank(rank)) for path, (rank, scaling) in actual.items()}
    stated = lora_settings.strengths(config, found)
    alike = all(stated[path][0] == found[path][0] and math.isclose(stated[path][1], found[path][1]) for path in found)
    if alike and lora_settings.are_patterns_admitted(config):
        return config
    rank, alpha = (Counter(values).most_common(1)[0][0] for values in zip(*found.values(), strict=True))
    patterns = {
        "rank_pattern": {path: value for path, (value, _) in found.items() if value != rank},
        "alpha_pattern": {path: value for path, (_, value) in found.items() if value != alpha},
    }
    return {**config, "r": rank, "lora_alpha": alpha, **patterns}


@contextlib.contextmanager
def _owning(lvlm: nn.Module, settings: dict[str, LoraConfig]) -> Iterator[None]:
    """Within this block, put the adapters' settings on the LVLM, where PEFT looks for them."""
    own = vars(lvlm).get("peft_config")
    lvlm.peft_config = settings
    try:
        yield
    finally:
        del lvlm.peft_config
        if own is not None:
            lvlm.peft_config = own
