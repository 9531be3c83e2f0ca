"""An LVLM known by its config alone: built on the meta device, without loading or downloading anything."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vladva_clip.encoder import four_bits, lora
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.encoder.admission.base_fit import check_builds, check_image_size, lacks_head
from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.describe import describe, describe_base
from vladva_clip.encoder.loading import load_prompts, locate_base_of
from vladva_clip.encoder.precision import torch_dtype
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.sources import registry
from vladva_clip.sources.download import NotHereError
from vladva_clip.sources.locate import Source, locate
from vladva_clip.storage.adapter_files import LORA, LORA_CONFIG
from vladva_clip.storage.config import VladvaConfig, read_json
from vladva_clip.storage.tensor_files import read_header
from vladva_training.config import ModelSection, Recipe
from vladva_training.losses import CONTRASTIVE
from vladva_training.plan.memory import Lengths, add_trainable

LETTERS_PER_TOKEN = 3.5  # of a template, when there is no tokenizer


@dataclass(frozen=True)
class Base:
    """An LVLM known by its config alone.

    backbone: on the meta device, with the parts that train. trained: its parameters that train, by name. tokenizer and
    prompts: None if the base is not on this machine.
    """

    backbone: Backbone
    config: VladvaConfig
    trained: dict[str, nn.Parameter]
    tokenizer: object | None
    prompts: Prompts | None

    @property
    def num_visual_tokens(self) -> int:
        """Number of visual tokens of an image."""
        return self.backbone.num_visual_tokens(self.config.image.size)

    @property
    def soft_tokens(self) -> tuple[int, int]:
        """Number of soft slots in the image and in the text prompt; estimated without a tokenizer."""
        if self.prompts:
            return len(self.prompts.image.soft_ids), len(self.prompts.text.soft_ids)
        prompt, (image, text) = self.config.prompt, self.template_tokens
        if prompt.soft_slots == "prompt":
            image, text = _estimate(prompt.image_prompt), _estimate(prompt.text_prompt)
        return prompt.num_image_soft_tokens or image, prompt.num_text_soft_tokens or text

    @property
    def template_tokens(self) -> tuple[int, int]:
        """Number of tokens around an image and around a caption, without BOS; estimated without a tokenizer."""
        if self.prompts:
            return len(self.prompts.image.ids), len(self.prompts.text.ids)
        return tuple(_estimate(self.config.prompt.rendered(side)) for side in ("image", "text"))

    @property
    def turn_tokens(self) -> int:
        """Number of tokens between an image's summary token and its long caption; estimated without a tokenizer."""
        return len(self.prompts.second_turn) if self.prompts else _estimate(self.config.prompt.second_turn or "")

    def lengths(self, short: float, long: float, share_long: float = 1) -> Lengths:
        """Return the lengths of rows around captions with so many ids (`long` includes the end of text).

        Means over images take the share of those that have a long caption.
        """
        image, text = (count + self.backbone.starts_with_bos for count in self.template_tokens)
        span = self.config.prompt.visual_span or self.backbone.visual_span
        borders = sum(text.count("<") for text in (span.opening, span.closing))  # each is special tokens alone
        return Lengths(image + borders + self.num_visual_tokens, long, text + short, share_long * self.turn_tokens)


def other_trainable(recipe: Recipe, base: Base) -> dict[str, int]:
    """Count the elements that train outside the LVLM, by parameter name."""
    width = base.backbone.hidden_dim
    image, text = base.soft_tokens
    soft = {"visual.soft_prompt.weight": image * width, "text.soft_prompt.weight": text * width}
    bias = {"logit_bias": 1} if CONTRASTIVE[recipe.loss.contrastive].has_bias else {}
    return {**(soft if recipe.model.soft_prompt else {}), "logit_scale": 1, **bias}


def find_base(section: ModelSection) -> Base | None:
    """Build a model's architecture without memory or network; None if its config is not on this machine.

    Raises:
        ValueError: an unknown model or tag, a missing directory, an unknown precision, or files of a base or of a LoRA
            that don't fit.
    """
    given = {"weights": False, "download": False, "profile": section.profile}
    source, name = _on_disk(lambda: locate(section.name, section.pretrained, **given))
    adapter = source if source and source.is_adapter else None
    if adapter:
        source, name = _on_disk(lambda: locate_base_of(adapter, adapter.stated, load_weights=False, download=False))
    built_in = next((key for key, entry in registry.MODELS.items() if name in (key, entry.base)), None)
    if source is None and built_in is None:
        return None
    if section.train == "qlora":
        four_bits.refuse_lora(name, bool(source.lora if source else _published_lora(built_in)))
    base_config = read_base_config(source.files) if source else registry.architecture(built_in)
    if adapter:
        config = adapter.stated
    elif source and source.stated:
        config = describe_base(source, section.image_size)
        check_image_size(source.files, config, source.stated_in)
    else:
        config = _described(base_config, name, built_in, section)
    headless = lacks_head(base_config, config, source.files if source and source.has_weights else None)
    if source:
        check_builds(source.files, config.image.size, headless)
    family = backbone_class(base_config["model_type"])
    backbone = family.from_config(base_config, torch_dtype(config, section.precision), headless=headless)
    if adapter and (adapter.directory / LORA).is_file():
        _put_stored_lora(backbone, adapter.directory)
    tokenizer, prompts = load_prompts(config, source.files)[:2] if source else (None, None)
    return Base(backbone, config, add_trainable(backbone, section), tokenizer, prompts)


def refuse_next_tokens(recipe: Recipe, base: Base) -> None:
    """Refuse next-token prediction with a model that can't predict tokens, as `FusedForward` would.

    Raises:
        ValueError: bidirectional attention, or a base without a head, or perhaps without (its weights aren't here).
    """
    if not recipe.loss.ntp_weight:
        return
    if not base.config.encoding.is_causal:
        raise ValueError(f"{recipe.model.name} has bidirectional attention: expected loss.ntp_weight=0")
    if not base.backbone.has_head:
        raise ValueError(
            f"{recipe.model.name} is published without its language-model head, or may be: expected loss.ntp_weight=0. "
            "If its files do have one, download them before you plan"
        )


def _on_disk(find: Callable[[], Source]) -> tuple[Source | None, str]:
    """A model's source and its base id; no source if it would have to be downloaded."""
    try:
        source = find()
    except NotHereError as error:
        return None, error.repo
    return source, source.base_id


def _published_lora(built_in: str) -> dict[str, Any]:
    """What a built-in model's profile says of the LoRA that it is published as; empty for others."""
    profile = registry.find(built_in).profile
    return profile.adapter if profile else {}


def _described(base_config: dict[str, Any], name: str, built_in: str | None, section: ModelSection) -> VladvaConfig:
    """Describe a bare LVLM or, where none of its files are here, a published embedder."""
    facts = registry.facts(built_in) if built_in else None
    described = describe(base_config, None, name, section.image_size or (facts and facts.image_size))
    if facts is None:
        return described
    if (profile := registry.find(built_in).profile) is None:
        return described.replace(dtype=facts.dtype)
    tag = section.pretrained if section.name == built_in else None
    return profile.config_of(tag).replace(image=described.image)


def _put_stored_lora(backbone: Backbone, adapter: Path) -> None:
    """Put an adapter's own LoRA into a model on the meta device, in float32, as loading does."""
    shapes = {name: tensor.shape for name, tensor in read_header(adapter / LORA).items()}
    lora.check_fit(backbone.lvlm, read_json(adapter / LORA_CONFIG), shapes)
    lora.in_float32(backbone.lvlm)


def _estimate(text: str) -> int:
    """Estimate the tokens of a text with holes; a special token counts as one."""
    rest, special = re.subn(r"<\|\w+\|>|</?\w+>", "", re.sub(r"{\w+}", "", text))
    return special + round(len(rest) / LETTERS_PER_TOKEN)
