"""A tiny random E5-V, laid out as its repository on the Hub, and its authors' way to embed; nothing of ours is used.

The tower takes 336 pixels, as published, so that a picture of 672 makes 2,928 visual tokens; everything else is small.
The tokenizer is like Llama 3's (`tiny_llava_next`). Tensors have the names of transformers 4, and no file says how
slots are counted: with today's transformers the authors' script needs `patch_size` (issue 26 of their repository).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from tests.support.edits import edit_json
from tests.support.models import published_configs, tiny_bases, tiny_llava_next

NAME, REPOSITORY, REVISION = "e5-v", "royokong/e5-v", "0c1f22679417b3ae925d779442221c40cd1861ab"
TEMPLATE = (
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n \n"
)
IMAGE = TEMPLATE.format("<image>\nSummary above image in one word: ")
TEXT = TEMPLATE.format("<sent>\nSummary above sentence in one word: ")
CHAT_TEMPLATE = (  # Llama 3's own, for texts alone
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
WIDTH = 32
_LLM = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_LLM |= {"intermediate_size": 64, "vocab_size": 512}
_TOWER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
PROCESSOR = {
    **{"image_processor_type": "LlavaNextImageProcessor", "processor_class": "LlavaNextProcessor", "resample": 3},
    **{f"do_{step}": True for step in ("resize", "center_crop", "rescale", "normalize", "convert_rgb", "pad")},
    **{"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "rescale_factor": 1 / 255},
    **{"image_mean": tiny_bases.MEAN, "image_std": tiny_bases.STD},
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}
Inputs = dict[str, torch.Tensor]


def write(directory: Path) -> Path:
    """Write the repository's files into a directory."""
    tokenizer = tiny_llava_next.llama3_tokenizer()
    kind, config = LlavaNextForConditionalGeneration, config_json(tokenizer)
    tiny_bases.write_base(directory, kind, tokenizer, config, PROCESSOR, tiny_llava_next.CHAT, seed=5)
    tiny_bases.rename_to_hub_llava(directory)
    tiny_bases.split(directory, 4)
    (directory / "chat_template.jinja").unlink()
    edit_json(directory / "tokenizer_config.json", chat_template=CHAT_TEMPLATE)
    return directory


def config_json(tokenizer) -> dict:
    """Return its config.json, as published but for its sizes and ids."""
    config = json.loads(json.dumps(published_configs.PUBLISHED["llava-next-8b"]))
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")}
    config["text_config"] |= {**_LLM, **special}
    config["vision_config"] |= _TOWER
    return config | {
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
    }


class Authors:
    """The repository's weights and processor, used as its authors do (README of github.com/kongds/E5-V)."""

    def __init__(self, directory: Path) -> None:
        self.processor = LlavaNextProcessor.from_pretrained(directory, patch_size=14, padding_side="left")
        self.lvlm = LlavaNextForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
        self.lvlm.eval().requires_grad_(False)

    def text_inputs(self, captions: Sequence[str]) -> Inputs:
        """Return what the processor makes of captions."""
        rows = [TEXT.replace("<sent>", caption) for caption in captions]
        return dict(self.processor(text=rows, return_tensors="pt", padding=True))

    def image_inputs(self, pictures: Sequence[Image.Image]) -> Inputs:
        """Return what the processor makes of pictures."""
        rows = [IMAGE] * len(pictures)
        return dict(self.processor(text=rows, images=list(pictures), return_tensors="pt", padding=True))

    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return the normalized features `(B, D)` of rows: the last position's, since they are padded on the left."""
        return torch.nn.functional.normalize(self.lvlm.model(**inputs).last_hidden_state[:, -1], dim=-1)

    def ids(self, inputs: Inputs) -> list[list[int]]:
        """Return the ids of each row without padding."""
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        return [ids[mask.bool()].tolist() for ids, mask in rows]

    def ids_of_texts(self, captions: Sequence[str]) -> list[list[int]]:
        """Return the ids of many captions' rows, without padding them."""
        return self.processor.tokenizer([TEXT.replace("<sent>", caption) for caption in captions]).input_ids
