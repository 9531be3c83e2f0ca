"""Fill a family's model with a base's weights, strictly: transformers reads them, and every fault is an error."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import BitsAndBytesConfig, GenerationConfig

from vladva_clip.encoder.backbones import heads
from vladva_clip.encoder.backbones.faults import check_loaded
from vladva_clip.interface.quiet import LARGE, quiet_transformers

if TYPE_CHECKING:
    from vladva_clip.encoder.backbones.base import Backbone

_FAULTS = (SafetensorError, OSError, LookupError, RuntimeError, TypeError, ValueError)


def load(
    family: type[Backbone],
    directory: Path,
    base_config: dict,
    generation_config: dict,
    dtype: torch.dtype,
    four_bits_on: torch.device | None,
    headless: bool,
) -> nn.Module:
    """Load transformers' model of a family; arguments and errors are those of `Backbone.from_directory`."""
    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    options |= {"config": family.lvlm_class().config_class.from_dict(copy.deepcopy(base_config))}
    options |= {"generation_config": GenerationConfig.from_dict(copy.deepcopy(generation_config))}
    if four_bits_on is not None:
        options |= _four_bits(family, base_config, dtype, four_bits_on)
    # wrong shapes pass here, so that check_loaded reports them with the other faults
    try:
        with quiet_transformers(_size(directory) > LARGE):  # check_loaded refuses what its table would report
            lvlm, info = family.lvlm_class().from_pretrained(directory, ignore_mismatched_sizes=True, **options)
    except torch.OutOfMemoryError:
        raise
    except _FAULTS as error:
        raise ValueError(
            f"transformers can't load the weights in {directory} ({type(error).__name__}: {error!s:.300}); get the "
            "files again"
        ) from error
    check_loaded(directory, info, {"lm_head.weight"} if headless else set())
    if headless:
        heads.take_away(lvlm)
    _check_tied(lvlm, directory)
    return lvlm


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def _check_tied(lvlm: nn.Module, directory: Path) -> None:
    if heads.is_there(lvlm) and lvlm.config.tie_word_embeddings and not heads.is_tied(lvlm):
        raise ValueError(
            f"config.json in {directory} ties the head to the embedding (tie_word_embeddings), but the files hold "
            "a different head: get the base's files again"
        )


def _four_bits(family: type[Backbone], base_config: dict, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return the options for QLoRA (arXiv 2305.14314): NF4, quantized scales, products in bf16; LLM only."""
    backbone = family.from_config(base_config, dtype)
    llm = set(backbone.trunk_module.layers.modules())
    modules = backbone.lvlm.named_modules()
    kept = [name for name, module in modules if isinstance(module, nn.Linear) and module not in llm]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=kept,
    )
    return {"quantization_config": quantization, "device_map": {"": device}}
