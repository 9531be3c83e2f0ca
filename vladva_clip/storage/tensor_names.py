"""One spelling for tensor names: the Hub's older names, today's, and those of transformers' modules."""

import re

_LLM = re.compile(r"^(?:language_model\.|text_model\.)?(?:model\.)?(layers|norm|embed_tokens)\.")
_HEAD = re.compile(r"^language_model\.lm_head\.")
_VISION = re.compile(r"^vision_tower\.vision_model\.")

EMBEDDING, HEAD = "language_model.embed_tokens.weight", "lm_head.weight"


def canonical(name: str) -> str:
    """Return the same spelling for a tensor's name in a base's files and in transformers' `state_dict`.

    LLaVA-1.5's files on the Hub say `language_model.model.layers...`, Qwen2-VL's say `model.layers...`, transformers 5
    has `model.language_model.layers...`, and SmolVLM has `model.text_model.layers...` everywhere; the vision tower's
    names lost `vision_model.` in transformers 5.
    """
    name = name.removeprefix("model.")
    name = _HEAD.sub("lm_head.", name)
    name = _VISION.sub("vision_tower.", name)
    return _LLM.sub(r"language_model.\1.", name)
