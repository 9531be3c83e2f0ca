"""A built-in LVLM of its published size with random weights, without a download: for measuring speed."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.sources import registry
from vladva_clip.storage.config import CLIP_MEAN, CLIP_STD

_SLOTS = ("image_token_id", "image_token_index")


def write(directory: Path, name: str) -> Path:
    """Write a base directory without weights: the shapes of a built-in model, and the words of `vladva-tiny`.

    Args:
        directory: exists and is empty.
        name: of a built-in LVLM.

    Returns:
        The directory, which `create_model(..., load_weights=False)` loads.
    """
    architecture = registry.architecture(name)
    family = backbone_class(architecture["model_type"])
    tokenizer = _write_tokenizer(directory, family)
    slot = {key: tokenizer.token_to_id(family.visual_span.slot) for key in _SLOTS if key in architecture}
    (directory / "config.json").write_text(json.dumps(architecture | slot))
    colors = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD}
    (directory / "preprocessor_config.json").write_text(json.dumps(colors))
    return directory


def _write_tokenizer(directory: Path, family: type[Backbone]) -> Tokenizer:
    """Write the packaged tokenizer with the family's control tokens, and return it."""
    packaged = registry.Packaged("vladva-tiny/base").directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(packaged))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in family.control_tokens])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": family.eos_token}
    settings |= {"bos_token": family.bos_token} if family.bos_token else {}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer
