"""Bases that state other templates than their family's."""

import json
from dataclasses import replace
from pathlib import Path

from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.describe import describe_base
from vladva_clip.sources.locate import BASE_FILE, from_name
from vladva_clip.storage.config import PromptConfig

FIRST_FORMAT = {  # as the first release had them
    "llava": PromptConfig(
        "USER: {visual}\nSummarize the provided image in one word: ASSISTANT:",
        "USER: {caption}\nSummarize the provided text in one word: ASSISTANT:",
    ),
    "qwen2_vl": PromptConfig(
        "<|im_start|>user\n{visual}\nSummarize the provided image in one word:<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\n{caption}\nSummarize the provided text in one word:<|im_end|>\n<|im_start|>assistant\n",
    ),
}


def content_first(family: str) -> PromptConfig:
    """Today's format with the prompt behind the image and the caption."""
    config = backbone_class(family).prompt_config()
    image, text = (
        getattr(config, f"{side}_template").replace(f"{{prompt}} {hole}", f"{hole}\n{{prompt}}")
        for side, hole in (("image", "{visual}"), ("text", "{caption}"))
    )
    return replace(config, image_template=image, text_template=text)


def state(base: Path, prompt: PromptConfig) -> Path:
    """Write the templates into a base's directory, as a base that was pre-trained with them has them."""
    config = describe_base(from_name(str(base))).replace(prompt=prompt)
    (base / BASE_FILE).write_text(json.dumps(config.to_dict()))
    return base
