"""An LVLM known by its config alone: built on the meta device, nothing loaded, nothing downloaded."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from torch import nn

from vladva_clip.encoder import lora
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.encoder.admission.base_fit import check_builds
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.loading import describe, load_prompts, read_config
from vladva_clip.encoder.precision import torch_dtype
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.sources import registry
from vladva_clip.sources.locate import CONFIG_FILE, has_schema, locate
from vladva_clip.storage.adapter_files import LORA, LORA_CONFIG
from vladva_clip.storage.config import HUB, VladvaConfig, read_json
from vladva_clip.storage.tensor_files import read_header
from vladva_training.config import ModelSection, Recipe
from vladva_training.plan.memory import Lengths, add_trainable

LETTERS_PER_TOKEN = 3  # of a template, where no tokenizer is at hand


@dataclass(frozen=True)
class Base:
    """An LVLM known by its config alone.

    backbone: on the meta device, with what trains. trained: its parameters that do. prompts: None without a tokenizer.
    """

    backbone: Backbone
    config: VladvaConfig
    trained: dict[str, nn.Parameter]
    tokenizer: object | None
    prompts: Prompts | None

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens of an image."""
        return self.backbone.num_visual_tokens(self.config.image.size)

    @property
    def soft_tokens(self) -> tuple[int, int]:
        """Soft slots of the image and of the text prompt; estimated without a tokenizer."""
        if self.prompts:
            return len(self.prompts.image.soft_ids), len(self.prompts.text.soft_ids)
        prompt = self.config.prompt
        image = prompt.num_image_soft_tokens or _estimate(prompt.image_template)
        return image, prompt.num_text_soft_tokens or _estimate(prompt.text_template)

    def lengths(self, short: float, long: float) -> Lengths:
        """Rows around captions of so many ids (`long` counts its end)."""
        image, text = (soft + self.backbone.starts_with_bos for soft in self.soft_tokens)
        span = self.backbone.visual_span
        borders = bool(span.opening) + bool(span.closing)
        return Lengths(image + borders + self.num_visual_tokens, long, text + short)


def other_trainable(recipe: Recipe, base: Base) -> dict[str, int]:
    """Count what trains outside the LVLM, by name."""
    width = base.backbone.embed_dim
    image, text = base.soft_tokens
    soft = {"visual.soft_prompt.weight": image * width, "text.soft_prompt.weight": text * width}
    bias = {"logit_bias": 1} if recipe.loss.contrastive == "sigmoid" else {}
    return {**(soft if recipe.model.soft_prompt else {}), "logit_scale": 1, **bias}


def find_base(section: ModelSection) -> Base | None:
    """Build a model's architecture without memory or network; None when its config is not on this machine.

    Raises:
        ValueError: an unknown model or tag, a local directory that is none, an unknown precision, files of a base or of
            a LoRA that don't fit.
    """
    directory, name = adapter, _ = _directory(section.name, section.pretrained)
    saved = read_config(directory) if directory and (directory / CONFIG_FILE).is_file() else None
    if saved:
        directory, name = _base_of(saved.base.id, saved.base.revision)
    built_in = next((key for key, entry in registry.MODELS.items() if name in (key, entry.base)), None)
    if directory is None and built_in is None:
        return None
    base_config = read_base_config(directory) if directory else registry.architecture(built_in)
    facts = registry.facts(built_in) if built_in else None
    config = saved or describe(base_config, None, name, facts.image_size if facts else None)
    config = config.replace(dtype=facts.dtype) if facts and not saved else config
    family = backbone_class(base_config["model_type"])
    if directory:
        check_builds(directory, config.image.size)
    backbone = family.from_config(base_config, torch_dtype(config, section.precision))
    if saved and (adapter / LORA).is_file():
        _put_stored_lora(backbone, adapter)
    tokenizer, prompts = load_prompts(config, directory)[:2] if directory else (None, None)
    return Base(backbone, config, add_trainable(backbone, section), tokenizer, prompts)


def _put_stored_lora(backbone: Backbone, adapter: Path) -> None:
    """Put an adapter's own LoRA into a model on the meta device, in float32 as it is loaded."""
    shapes = {name: tensor.shape for name, tensor in read_header(adapter / LORA).items()}
    lora.check_fit(backbone.lvlm, read_json(adapter / LORA_CONFIG), shapes)
    lora.in_float32(backbone.lvlm)


def _directory(name: str, pretrained: str | None) -> tuple[Path | None, str]:
    """The directory of a model's adapter or base and its name or Hub id; None when it would have to be downloaded."""
    if name.startswith(HUB):
        repo, _, revision = name.removeprefix(HUB).partition("@")
        return _cached(repo, revision or None), repo
    if has_schema(name) or (pretrained and pretrained not in registry.find(name).tags):
        source = locate(name, pretrained, weights=False)
        return source.directory, source.base_id
    if source := registry.find(name).source:
        return _directory(source, None)
    place = registry.find(name).tags[registry.find_tag(name, pretrained)]
    if place is None:
        return _base_of(registry.canonical(name), None)
    return (place.directory, place.name) if isinstance(place, registry.Packaged) else (_cached(place, None), place)


def _base_of(base_id: str, revision: str | None) -> tuple[Path | None, str]:
    if has_schema(base_id):
        return _directory(base_id, None)
    if "/" in base_id:
        return _cached(base_id, revision), base_id
    base_id = registry.built_in(base_id)
    hub_id = registry.MODELS[base_id].base
    return (_cached(hub_id, revision), hub_id) if hub_id else (registry.packaged_base(base_id), base_id)


def _cached(repo: str, revision: str | None) -> Path | None:
    registry.refuse_own_name(repo)
    for name in (CONFIG_FILE, "config.json"):
        if isinstance(found := try_to_load_from_cache(repo, name, revision=revision), str):
            return Path(found).parent
    return None


def _estimate(template: str) -> int:
    return len(re.sub(r"{\w+}", "", template)) // LETTERS_PER_TOKEN
