"""What trains: LoRA or the whole LLM, soft prompts, logit scale. Everything else is frozen."""

from collections.abc import Callable

import torch
from peft.tuners.lora import LoraLayer

import vladva_clip
from vladva_clip import VladvaCLIP
from vladva_clip.encoder import lora
from vladva_clip.encoder.admission import own_profiles
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.describe import describe_base
from vladva_clip.encoder.loading import load_parts, locate_base_of
from vladva_clip.encoder.preprocess import image_transform
from vladva_clip.encoder.tokenizer import VladvaTokenizer
from vladva_clip.interface import devices
from vladva_clip.saving import round_trip
from vladva_clip.sources.locate import locate
from vladva_training.config import ModelSection
from vladva_training.step.half_precision import refuse_float16
from vladva_training.step.kernels import set_attention


def load_trainable(section: ModelSection, device: torch.device | str = "cpu") -> tuple[VladvaCLIP, Callable]:
    """Load a base or an adapter to train, unmerged; exactly what the section says requires gradients.

    Args:
        section: which model, and which of its parts train.
        device: where it goes (see `vladva_clip.interface.devices`).

    Returns:
        The model in train mode, and its preprocessing (PIL image -> `(3, H, W)` float32).

    Raises:
        ValueError: as `vladva_clip.create_model` and `set_trainable`; "qlora" without bitsandbytes; an attention that
            can't be used here.
    """
    device = devices.resolve(device)
    model, preprocess = _load_in_four_bits(section, device) if section.train == "qlora" else _load(section, device)
    own_profiles.refuse_unread(model.config, round_trip.opened(model))  # now, not when the adapter is saved
    set_trainable(model, section)
    if section.attention:
        set_attention(model.visual.backbone.lvlm, section.attention)
    if section.compile:
        model.visual.backbone.trunk_module.compile(dynamic=True)
    return model.train(), preprocess


def load_reader(section: ModelSection) -> tuple[VladvaTokenizer, Callable]:
    """Load a model's tokenizer and preprocessing, without reading its weights.

    Raises:
        ValueError: as `load_trainable`, for everything that the small files show.
    """
    source = locate(section.name, section.pretrained, weights=False, profile=section.profile)
    stated = source.stated if source.is_adapter else None
    base = locate_base_of(source, stated, load_weights=False) if stated else source
    config = stated or describe_base(base, section.image_size)
    return VladvaTokenizer(base.files, prompt=config.prompt), image_transform(config.image)


def set_trainable(model: VladvaCLIP, section: ModelSection) -> None:
    """Freeze a model except for what the section trains, adding a LoRA if it has none; in place.

    Raises:
        ValueError: the model's LoRA is merged (its weights are no longer the base's), has other settings than the
            section's, or covers the vision tower; the section would train a LoRA and the LLM under it; frozen weights
            in float16.
    """
    refuse_float16(model.visual.backbone, section)
    if model.merged:
        raise ValueError("the model's LoRA is merged into its weights; load it with merge_lora=False to train it")
    _check_lora(model.visual.backbone, section)
    model.requires_grad_(False)
    set_backbone_trainable(model.visual.backbone, section)
    for tower in (model.visual, model.text):
        tower.soft_prompt.requires_grad_(section.soft_prompt)
    model.logit_scale.requires_grad_(True)
    if section.gradient_checkpointing:
        model.set_grad_checkpointing()


def set_backbone_trainable(backbone: Backbone, section: ModelSection) -> None:
    """Freeze a backbone except for what the section trains, adding a LoRA if it has none; in place, unchecked.

    Works on the meta device too, where a plan counts what would train.
    """
    backbone.requires_grad_(False)
    if section.train in ("lora", "qlora"):
        if not lora.has_lora(backbone.lvlm):
            settings = section.lora_rank, section.lora_alpha, section.lora_dropout
            lora.start(backbone.lvlm, backbone.trunk_module, *settings)
        for name, parameter in backbone.lvlm.named_parameters():
            parameter.requires_grad_("lora_" in name)
    if section.train == "full":
        if backbone.dtype.itemsize < 4:
            backbone.lvlm.float()  # a step of AdamW is smaller than half precision can add to a weight
        for module in (backbone.trunk_module, backbone.lvlm.get_output_embeddings()):
            module.requires_grad_(True)


def _load(section: ModelSection, device: torch.device) -> tuple[VladvaCLIP, Callable]:
    options = {"precision": section.precision, "image_size": section.image_size, "profile": section.profile}
    return vladva_clip.create_model(section.name, section.pretrained, device=device, merge_lora=False, **options)


def _load_in_four_bits(section: ModelSection, device: torch.device) -> tuple[VladvaCLIP, Callable]:
    source = locate(section.name, section.pretrained, profile=section.profile)
    options = {"image_size": section.image_size, "four_bits_on": device}
    parts = load_parts(source, section.precision, merge_lora=False, **options)
    return VladvaCLIP(parts).to(device), image_transform(parts.config.image)


def _check_lora(backbone: Backbone, section: ModelSection) -> None:
    """Check that a LoRA that is already there can train as the section says."""
    if not lora.has_lora(backbone.lvlm):
        return
    if section.train == "full":
        raise ValueError(
            f"model.train is 'full' and {section.name} has a LoRA, which would train beside the weights it is added "
            "to; start from its base, or train the LoRA further with model.train=lora"
        )
    if section.train in ("lora", "qlora"):
        _check_settings(lora.config_dict(backbone.lvlm, "", None), section)
        _refuse_beyond_llm(backbone)


def _check_settings(config: dict, section: ModelSection) -> None:
    for theirs, ours in {"r": "lora_rank", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}.items():
        found, asked = config[theirs], getattr(section, ours)
        if found != asked:
            raise ValueError(
                f"the LoRA of {section.name} has {theirs} {found}, the recipe asks for {asked}; set "
                f"model.{ours}={found} to train it further, or start from its base"
            )


def _refuse_beyond_llm(backbone: Backbone) -> None:
    """Refuse a LoRA on the vision side, which runs once per step and without a graph."""
    llm = {*backbone.trunk_module.modules(), *backbone.lvlm.get_output_embeddings().modules()}
    layers = [
        name for name, module in backbone.lvlm.named_modules() if isinstance(module, LoraLayer) and module not in llm
    ]
    if layers:
        raise ValueError(
            f"the adapter has a LoRA on {layers[0]} ({len(layers)} layers outside the LLM in all); the vision tower "
            "and the projector stay frozen here, so that LoRA would not be trained. Start from the base"
        )
