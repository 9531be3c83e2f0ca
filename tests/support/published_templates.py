"""Templates of published embedders as their authors write them, odd captions, and rows of whole strings."""

import torch

from vladva_clip.encoder.backbones import backbone_class
from vladva_clip.encoder.prompts import Prompts
from vladva_clip.storage.prompt_config import PromptConfig

USER = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
END = f"{ANSWER}<|endoftext|>"
TEXTS = {  # as the authors write them
    "gme": f"{USER}{{caption}}{END}",
    "unite": f"{USER}{{caption}}\nSummary above sentence in one word:{END}",
    "lamra": f"{USER}{{caption}}\nSummarize above sentence in one word: {ANSWER}",
    "rzen": f"{USER}{{caption}}{END}",
    "rzen query": f"{USER}Find me an everyday image that matches the given caption: {{caption}}{END}",
    "lamra query": f"{USER}Find me an everyday image that matches the given caption. {{caption}}\nSummarize above "
    f"sentence in one word: {ANSWER}",
    "vlm2vec query": "Find me an everyday image that matches the given caption: {caption}\n",
    "behind a blank line": f"Query\n\n{{caption}}\n\nEmbedding:{END}",
    "behind a special token and a line break": f"<|im_end|>\n{{caption}}{END}",
}
IMAGES = {
    "gme": f"{USER}{{visual}}{END}",
    "unite": f"{USER}{{visual}}\nSummary above image in one word:{END}",
    "lamra": f"{USER}{{visual}}\nSummarize above image in one word: {ANSWER}",
    "rzen": f"{USER}{{visual}}Represent the given image.{END}",
    "vlm2vec": "{visual}\nRepresent the given image.\n",
}
ODD = [
    *("a dog.", 'He said "hi"!', "two  spaces", "tail ", "tail   ", "a tab\t", "tail\n", "tail.\n\n", "new\nline", ""),
    *("\nleading", "  \n x", "\r\nreturn", "\n", " ", "  ", "\t", " leading", "   leading", "\u3000全角", "\u00a0x"),
    *(
        "狗在草地上。",
        "一只红色的圆，左边有一只猫！",
        "😀",
        "a 👩‍👩‍👧 family 😀.",
        "«été»",
        "42 dogs",
        "(left) of it",
        "it's",
    ),
    *("...", "a\r\nb", "a long one, " * 100),
]


def config_of(text: str, image: str = IMAGES["gme"], **keys) -> PromptConfig:
    return PromptConfig(image, text, **{"caption_ids": "joined", "clean": "none", **keys})


def prompts_of(real, config: PromptConfig) -> Prompts:
    family = backbone_class("qwen2_vl")
    return Prompts.build(real, config, config.visual_span or family.visual_span, False)


def whole(real, text: str) -> list[int]:
    return real(text, add_special_tokens=False).input_ids


def rows_of(prompts: Prompts, captions: list[list[int]]) -> list[list[int]]:
    batch = prompts.text_batch([torch.tensor(ids, dtype=torch.long) for ids in captions])
    ends = batch.summary_index.tolist()
    return [ids[: end + 1] for ids, end in zip(batch.input_ids.tolist(), ends, strict=True)]
