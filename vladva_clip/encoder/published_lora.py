"""The LoRA of a published embedder: checked as an adapter's of ours, then merged into the LVLM under it on loading.

Its tensors have the names of the transformers that it was saved with: before 4.52, Qwen2-VL's modules were called
`model.layers...` and `visual...`, which are `model.language_model.layers...` and `model.visual...` today.
"""

import re
from collections import Counter
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from vladva_clip.encoder import lora, lora_settings
from vladva_clip.encoder.admission.base_config import read_base_config
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.storage.adapter_files import LORA
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.config import VladvaConfig
from vladva_clip.storage.lora_files import LoraFiles
from vladva_clip.storage.lora_shapes import check_shapes
from vladva_clip.storage.tensor_names import canonical

_PREFIX = "base_model.model."
_NAME = re.compile(
    r"base_model\.model\.(?P<module>.+?)\."
    r"(?P<part>lora_[AB]\.(?:weight|bias)|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?|(?:base_layer\.)?bias)"
)
_BY_PATTERN = ("exclude_modules", "layers_to_transform", "layers_pattern")


def check(base: BaseFiles, built: Backbone, config: VladvaConfig) -> None:
    """Check a base's published LoRA, if it has one, before any of its tensors is read.

    Args:
        base: the base's files.
        built: its architecture on the meta device; it is left as it is.
        config: the model's.

    Raises:
        ValueError: as `LoraFiles.shapes`, `lora_shapes.check_shapes` and `lora.check_fit`, with the adapter's place.
    """
    if base.lora is None:
        return
    lvlm = _another(base, built)
    try:
        settings, names = _todays(base.lora, lvlm)
        shapes = {names[name]: shape for name, shape in base.lora.shapes.items()}
        check_shapes(shapes, settings, config)
        lora.check_fit(lvlm, settings, shapes)
    except ValueError as error:
        raise ValueError(f"the published adapter in {base.lora.directory}: {error}") from error


def merge(base: BaseFiles, lvlm: nn.Module) -> None:
    """Merge a base's published LoRA, if it has one, into transformers' model of the base, in place.

    As PEFT does on loading: computed in float32, and rounded once to the dtype of the weights.

    Raises:
        ValueError: as `lora.inject` and `lora.merge`.
    """
    if base.lora is not None:
        _inject(base.lora, lvlm)
        lora.merge(lvlm)


class Layers:
    """The layers that a base's published LoRA changes, over stand-ins for the base's weights; none without such a LoRA.

    Attributes:
        layers: canonical name of a module -> its layer (see `lora.merged`).
        replaced: canonical name of a tensor -> what the LoRA's files have in its place (biases).

    Args:
        base: the base's files.
        backbone: its architecture; it is left as it is.
    """

    def __init__(self, base: BaseFiles, backbone: Backbone) -> None:
        self.layers: dict[str, LoraLayer] = {}
        self.replaced: dict[str, torch.Tensor] = {}
        if base.lora is not None:
            lvlm = _another(base, backbone)
            lora.stand_in(lvlm)
            lvlm.tie_weights()
            stored = _inject(base.lora, lvlm)
            self.layers = {canonical(name): layer for name, layer in lora.targets(lvlm).items()}
            self.replaced = {canonical(name): tensor for name, tensor in lora.base_parameters(stored).items()}


def _another(base: BaseFiles, backbone: Backbone) -> nn.Module:
    """Return transformers' model of a base on the meta device, to put a LoRA into."""
    headless = not backbone.has_head
    return type(backbone).from_config(read_base_config(base), backbone.dtype, headless=headless).lvlm


def _inject(files: LoraFiles, lvlm: nn.Module) -> dict[str, torch.Tensor]:
    settings, names = _todays(files, lvlm)
    tensors = {names[name]: tensor for name, tensor in files.tensors().items()}
    lora.inject(lvlm, settings, tensors)
    return tensors


def _todays(files: LoraFiles, lvlm: nn.Module) -> tuple[dict[str, Any], dict[str, str]]:
    """Return adapter_config.json with the names of transformers' model, and stored name -> today's for each tensor.

    Raises:
        ValueError: as `lora_settings.lora_settings`, or two tensors of one name.
    """
    modules = {canonical(name): name for name, _ in lvlm.named_modules()}
    parts = {name: match for name in files.shapes if (match := _NAME.fullmatch(name))}
    todays = {match["module"]: modules.get(canonical(match["module"]), match["module"]) for match in parts.values()}
    names = {name: name for name in files.shapes}
    names |= {name: f"{_PREFIX}{todays[match['module']]}.{match['part']}" for name, match in parts.items()}
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise ValueError(f"{LORA} holds {twice[0]:.200} under two names; get the file again")
    with_lora = {match["module"] for match in parts.values() if match["part"].startswith("lora_")}
    return _renamed(files, {name: new for name, new in todays.items() if name in with_lora}), names


def _renamed(files: LoraFiles, todays: dict[str, str]) -> dict[str, Any]:
    """Return the settings under today's names: the strengths that the stored names have in them, module by module.

    Args:
        files: the LoRA.
        todays: stored name -> today's, of the modules that have a LoRA.
    """
    settings = lora_settings.lora_settings(files.config)
    if all(old == new for old, new in todays.items()):
        return files.config
    stated = lora_settings.strengths(settings, todays)
    rank, alpha = settings.get("r", 8), settings.get("lora_alpha", 8)
    patterns = {
        "rank_pattern": {todays[name]: value for name, (value, _) in stated.items() if value != rank},
        "alpha_pattern": {todays[name]: value for name, (_, value) in stated.items() if value != alpha},
    }
    return {**files.config, **patterns, **_targets(settings, todays)}


def _targets(settings: dict[str, Any], todays: dict[str, str]) -> dict[str, Any]:
    """Return the targets: last names hold for both spellings; of any others, the modules that have tensors are kept."""
    targets = settings.get("target_modules")
    if isinstance(targets, list) and not any("." in name for name in targets) and not settings.get("exclude_modules"):
        return {}
    return {"target_modules": sorted(todays.values()), **dict.fromkeys(_BY_PATTERN)}
