"""What a base in 4 bits (QLoRA) is for, and what can't be done with it."""

from vladva_clip.interface import extras


def check(merge_lora: bool, load_weights: bool) -> None:
    """Raise ValueError unless a LoRA is to be trained over weights, or if the libraries for 4 bits are missing."""
    if merge_lora or not load_weights:
        raise ValueError(
            "a base in 4 bits is only for training a LoRA over its weights: it takes merge_lora=False and "
            "load_weights=True"
        )
    extras.require("bitsandbytes", "accelerate", purpose="a base in 4 bits (model.train=qlora)")


def refuse_lora(base_id: str, is_lora: bool) -> None:
    """Raise ValueError for a published LoRA: the merge would be rounded to 4 bits."""
    if is_lora:
        raise ValueError(
            f"{base_id} is published as an adapter, which can't be merged into weights of 4 bits without rounding "
            "it away: expected model.train=lora"
        )
