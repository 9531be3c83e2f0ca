"""Check a stored LoRA's tensor names and shapes against its two configs, before the base is available."""

import math
import re
from typing import Any

from vladva_clip.storage.config import VladvaConfig

Shape = tuple[int, ...]
# in the families' LLMs, these modules take or return hidden states of the LLM's width
_LAYER = r"\.(?:language_model|text_model)\.layers\.\d+\."
_TAKES_WIDTH = re.compile(_LAYER + r"(?:self_attn\.[qkv]_proj|mlp\.(?:gate|up)_proj)\.lora_A\.weight$")
_YIELDS_WIDTH = re.compile(_LAYER + r"(?:self_attn\.o_proj|mlp\.down_proj)\.lora_B\.weight$")
_RANK_AXIS = {".lora_A.weight": 0, ".lora_B.weight": 1, ".lora_embedding_A": 0, ".lora_embedding_B": 1}
MAX_RATIO = 16  # of a module's other side to the LLM's width; published models have at most 4
MAX_ROWS = 1 << 22  # of an embedding or a head
# names in PEFT's files (without the adapter's name), and the base's own biases
_KNOWN = re.compile(
    r"base_model\.model(?:\.\w+)+\.(?:lora_[AB]\.(?:weight|bias)|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?|bias)"
)


def check_shapes(shapes: dict[str, Shape], lora_config: dict[str, Any], config: VladvaConfig) -> None:
    """Check a LoRA's tensors against the ranks of its adapter_config.json and the width of the LLM.

    Whether the tensors are complete and fit the base in every size is checked later, when the base is known.

    Args:
        shapes: name -> shape of the tensors in adapter_model.safetensors.
        lora_config: the content of adapter_config.json.
        config: the adapter's config.

    Raises:
        ValueError: an invalid rank, tensors that don't belong to a LoRA, or tensors of the wrong shape; the message
            gives their number and one example.
    """
    if unknown := sorted(name for name in shapes if not _KNOWN.fullmatch(name)):
        raise ValueError(
            f"the LoRA does not fit: {len(unknown)} unexpected tensors, such as {unknown[0]:.200}, which is not "
            "part of a plain LoRA in PEFT's format. Was the file written by another program?"
        )
    ranks = _ranks(lora_config)
    faults = [(name, shape) for name, shape in sorted(shapes.items()) if not _fits(name, shape, ranks, config)]
    if faults:
        name, shape = faults[0]
        raise ValueError(
            f"the LoRA does not fit its config: {len(faults)} tensors of another shape, such as {name:.200} (found "
            f"{shape}, expected rank {' or '.join(map(str, sorted(ranks)))} and the LLM's width {config.embed_dim}). "
            "Was it trained on another base?"
        )


def _ranks(lora_config: dict[str, Any]) -> set[int]:
    rank, pattern = lora_config.get("r", 8), lora_config.get("rank_pattern", {})  # PEFT's own defaults
    if not _is_rank(rank):
        raise ValueError(f"adapter_config.json: r is {rank!r:.80}, expected a positive whole number")
    if not isinstance(pattern, dict) or not all(map(_is_rank, pattern.values())):
        raise ValueError(
            f"adapter_config.json: rank_pattern is {pattern!r:.80}, expected an object of positive whole numbers"
        )
    return {rank, *pattern.values()}


def _is_rank(value: object) -> bool:
    return type(value) is int and value > 0


def _fits(name: str, shape: Shape, ranks: set[int], config: VladvaConfig) -> bool:
    axis = next((axis for ending, axis in _RANK_AXIS.items() if name.endswith(ending)), None)
    if axis is None:  # a bias, or DoRA's magnitudes
        return math.prod(shape) <= MAX_ROWS
    if len(shape) < 2 or shape[axis] not in ranks or shape[1 - axis] > _most(name, config):
        return False
    if config.encoding.projection:  # then the LLM has another width, which only the base knows
        return True
    if _TAKES_WIDTH.search(name):
        return shape[1] == config.embed_dim
    return shape[0] == config.embed_dim if _YIELDS_WIDTH.search(name) else True


def _most(name: str, config: VladvaConfig) -> int:
    """Return the most rows or columns that the module under a LoRA can have."""
    return MAX_ROWS if "embed" in name or "lm_head" in name else MAX_RATIO * config.embed_dim
