"""Collect what `save_pretrained` writes from a model that anyone may have changed since it was loaded."""

from pathlib import Path
from typing import Any

import torch

from vladva_clip.encoder import lora, text_only
from vladva_clip.encoder.admission import own_profiles
from vladva_clip.saving import lora_saving
from vladva_clip.saving.lora_saving import LoraState
from vladva_clip.storage import foreign_files, weights
from vladva_clip.storage.adapter_files import StoredAdapter
from vladva_clip.storage.base import BaseFiles


def state_of(model: Any) -> tuple[StoredAdapter, bool]:
    """Return a model's adapter as data, and whether its LoRA is merged into the base's weights now.

    Args:
        model: a VladvaCLIP.

    Raises:
        ValueError: something was trained that an adapter can't hold, so it would be lost; or a model for texts alone.
    """
    base = BaseFiles(model.base_directory, own_profiles.admission(model.config), model.base_lora)
    own_profiles.refuse_unread(model.config, base)
    found = _lora_state(model)
    text_only.require_tower(model.visual.backbone, "save it")
    config, tensors, merged = (found.config, found.tensors, found.merged) if found else (None, {}, False)
    _refuse_trainable_base(model, lora.base_parameters(tensors))
    soft_prompt = {"image": _soft_prompt(model, "visual"), "text": _soft_prompt(model, "text")}
    bias = None if model.logit_bias is None else _number(model, "logit_bias")
    scalars = model.config.replace(logit_scale=_number(model, "logit_scale"), logit_bias=bias)
    return StoredAdapter(scalars, soft_prompt, config, tensors), merged


def refuse_other_directory(directory: Path, force: bool) -> None:
    """Refuse to write an adapter next to an LVLM's weights: transformers would take it for a LoRA on that LVLM.

    Args:
        directory: where the adapter would be saved.
        force: allow files that don't belong to an adapter, but never an LVLM's weights.

    Raises:
        ValueError: the directory has an LVLM's weights, or files that don't belong to an adapter.
    """
    for name in (weights.SINGLE, weights.INDEX):
        if (directory / name).exists():
            raise ValueError(f"{directory} has an LVLM's {name}; save the adapter to another directory")
    foreign_files.refuse(directory, force)


def _lora_state(model: Any) -> LoraState | None:
    base = model.config.base
    found = lora_saving.read(model, model.visual.backbone.lvlm, base.id, base.revision)
    if model._merged_adapter is None:
        return found
    if found is not None:
        raise ValueError(
            "the model has a merged adapter and a new LoRA on top, and one adapter can't hold both; to continue "
            "training, load the model with merge_lora=False"
        )
    return LoraState(*model._merged_adapter, merged=True)


def _refuse_trainable_base(model: Any, stored: dict[str, torch.Tensor]) -> None:
    trainable = [name for name, tensor in model.visual.backbone.lvlm.named_parameters() if tensor.requires_grad]
    trainable = [name for name in trainable if not lora.is_lora(name) and lora.own_name(name) not in stored]
    if trainable:
        raise ValueError(
            f"{len(trainable)} tensors of the base are trainable, such as {trainable[0]}; an adapter holds only soft "
            "prompts and a LoRA. Save the whole LVLM with model.visual.backbone.lvlm.save_pretrained; if they were not "
            "trained, freeze them with requires_grad_(False)"
        )


def _soft_prompt(model: Any, tower: str) -> torch.Tensor:
    part = getattr(model, tower)
    weight = getattr(part.soft_prompt, "weight", None)
    template = part.prompts.image if tower == "visual" else part.prompts.text
    expected = (len(template.soft_ids), model.visual.backbone.hidden_dim)
    found = tuple(weight.shape) if isinstance(weight, torch.Tensor) else type(weight).__name__
    if found != expected:
        raise ValueError(
            f"model.{tower}.soft_prompt.weight is {found}, expected {expected}: an adapter has one vector for each "
            "soft slot of its template"
        )
    if not weight.isfinite().all():
        raise ValueError(f"model.{tower}.soft_prompt.weight contains NaN or infinity; go back to an earlier state")
    return weight.float()


def _number(model: Any, name: str) -> float:
    value = getattr(model, name)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        found = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"model.{name} is {found}, expected a tensor with one number")
    return value.item()
