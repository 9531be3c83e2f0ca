"""Adapters with random LoRA and soft prompts over a tiny base, written by the model itself."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model

import vladva_clip

TARGETS = r".*_model\.layers\.\d+\.self_attn\.(q_proj|v_proj)"  # of the LLM; the vision tower has an encoder


def with_lora(
    model: vladva_clip.VladvaCLIP, seed: int = 0, dropout: float = 0.0, **settings: Any
) -> vladva_clip.VladvaCLIP:
    """Put random LoRA layers into a training-free model and move its soft prompts and logit scale; in place."""
    lvlm = model.visual.backbone.lvlm
    settings = {"r": 4, "lora_alpha": 8, "lora_dropout": dropout, "target_modules": TARGETS, **settings}
    lora_config = LoraConfig(**settings)
    inject_adapter_in_model(lora_config, lvlm)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif "soft_prompt" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
        model.logit_scale.fill_(3.0)
    return model.requires_grad_(False).eval()


def write_adapter(
    base: Path, directory: Path, seed: int = 0, dropout: float = 0.0, **settings: Any
) -> vladva_clip.VladvaCLIP:
    """Write an adapter of `base` into `directory` and return the model that wrote it (fp32, unmerged)."""
    model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
    with_lora(model, seed, dropout, **settings).save_pretrained(directory)
    return model


def load(directory: Path, **options: Any) -> vladva_clip.VladvaCLIP:
    """The model of a base's or an adapter's directory, in fp32 unless the options say otherwise."""
    return vladva_clip.create_model(f"local-dir:{directory}", **{"precision": "fp32", **options})[0]


def features(model: vladva_clip.VladvaCLIP, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised features of two images and three captions that depend on the seed only."""
    images = torch.randn(2, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(seed))
    eot, width = model.text.prompts.eot_token_id, 6
    tokens = torch.full((3, width), 0)
    for row, length in enumerate((1, 3, 5)):
        tokens[row, :length] = torch.arange(60 + row, 60 + row + length)
        tokens[row, length] = eot
    return model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)


def same(found: vladva_clip.VladvaCLIP, expected: vladva_clip.VladvaCLIP) -> bool:
    """Whether two models have equal features, to the bit."""
    return all(torch.equal(*pair) for pair in zip(features(found), features(expected), strict=True))
