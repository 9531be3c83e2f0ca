"""Who trains: LoRA or the whole LLM, soft prompts, logit scale. All else is frozen."""

from collections.abc import Callable

import torch

import vladva_clip
from vladva_clip import VladvaCLIP, lora
from vladva_training.config import ModelSection


def load_trainable(section: ModelSection, device: torch.device | str = "cpu") -> tuple[VladvaCLIP, Callable]:
    """Load a base or an adapter to train on, unmerged, and let exactly what the section says require gradients.

    Args:
        section: which model, and what of it trains.
        device: where it goes.

    Returns:
        The model in train mode, and its preprocessing (PIL image -> `(3, H, W)` float32).

    Raises:
        ValueError: as `vladva_clip.create_model`; a LoRA of another rank or alpha than the recipe's.
    """
    model, _, preprocess = vladva_clip.create_model_and_transforms(
        section.name, section.pretrained, precision=section.precision, device=device, merge_lora=False
    )
    set_trainable(model, section)
    if section.compile:
        model.visual.backbone.trunk_module.compile(dynamic=True)
    return model.train(), preprocess


def set_trainable(model: VladvaCLIP, section: ModelSection) -> None:
    """Freeze all of the model but what the section trains, adding a LoRA where it has none; in place.

    Raises:
        ValueError: the model's LoRA is merged (its weights are not the base's any more) or of another shape.
    """
    if model.merged:
        raise ValueError("the model's LoRA is merged into its weights; load it with merge_lora=False to train it on")
    backbone = model.visual.backbone
    model.requires_grad_(False)
    if section.train in ("lora", "qlora"):
        _train_lora(model, section)
    if section.train == "full":
        for module in (backbone.trunk_module, backbone.lvlm.get_output_embeddings()):
            module.requires_grad_(True)
    for tower in (model.visual, model.text):
        tower.soft_prompt.requires_grad_(section.soft_prompt)
    model.logit_scale.requires_grad_(True)
    if section.gradient_checkpointing:
        model.set_grad_checkpointing()


def trainable_names(model: torch.nn.Module) -> list[str]:
    """Return the names of all parameters that require gradients."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _train_lora(model: VladvaCLIP, section: ModelSection) -> None:
    backbone = model.visual.backbone
    if lora.has_lora(backbone.lvlm):
        _check_shape(lora.config_dict(backbone.lvlm, "", None), section)
    else:
        lora.start(backbone.lvlm, backbone.trunk_module, section.lora_rank, section.lora_alpha, section.lora_dropout)
    for name, parameter in backbone.lvlm.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _check_shape(config: dict, section: ModelSection) -> None:
    found, asked = (config["r"], config["lora_alpha"]), (section.lora_rank, section.lora_alpha)
    if found != asked:
        raise ValueError(
            f"the adapter {section.name} has a LoRA of rank and alpha {found}, the recipe asks for {asked}; set "
            "model.lora_rank and model.lora_alpha to the adapter's, or start from its base"
        )
