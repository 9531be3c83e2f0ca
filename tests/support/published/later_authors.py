"""How the authors of GVE and of Qwen3-VL-Embedding compute a feature, written from their code; nothing of ours is used.

Both call the stock class on the processor's output and take the last unmasked token, `<|endoftext|>`. GVE's processor
appends its id by hand; Qwen3-VL-Embedding's tokenizer does it.
"""

import abc
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen3VLModel

from tests.support.published.later_repositories import QUERY, QWEN3

END = 151643  # <|endoftext|>
DOCUMENT = "Represent the user's input."
Inputs = dict[str, torch.Tensor]


class LaterAuthors(abc.ABC):
    """A repository's weights and processor, used as its authors do. `model` is transformers' model without a head."""

    model: torch.nn.Module

    def __init__(self, directory: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(directory, padding_side="right")

    @abc.abstractmethod
    def render(self, content: list[dict], query: bool) -> str:
        """Return a row as text for the processor."""

    @abc.abstractmethod
    def inputs(self, rows: Sequence[str], pictures: Sequence[Image.Image] | None) -> Inputs:
        """Return what the processor makes of rows, padded on the right."""

    def text_inputs(self, captions: Sequence[str], query: bool = False) -> Inputs:
        """Return what the processor makes of captions."""
        return self.inputs([self.render([{"type": "text", "text": one}], query) for one in captions], None)

    def image_inputs(self, pictures: Sequence[Image.Image]) -> Inputs:
        """Return what the processor makes of pictures."""
        row = self.render([{"type": "image", "image": pictures[0]}], query=False)
        return self.inputs([row] * len(pictures), [one.convert("RGB") for one in pictures])

    @torch.no_grad()
    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return the normalized features `(B, D)` of rows."""
        self.model.rope_deltas = None  # else a later call counts 0, 1, 2, ... in some releases
        states = self.model(**inputs).last_hidden_state
        last = inputs["attention_mask"].sum(dim=1) - 1
        return torch.nn.functional.normalize(states[torch.arange(len(states)), last], p=2, dim=1)

    def ids(self, inputs: Inputs) -> list[list[int]]:
        """Return the ids of each row without padding."""
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        return [ids[mask.bool()].tolist() for ids, mask in rows]

    def ids_of_texts(self, captions: Sequence[str], query: bool = False) -> list[list[int]]:
        """Return the ids of many captions' rows, without padding them."""
        rows = [self.render([{"type": "text", "text": one}], query) for one in captions]
        return self.appended(self.processor.tokenizer(rows).input_ids)

    def appended(self, rows: list[list[int]]) -> list[list[int]]:
        """Return the tokenizer's rows with what the processor appends."""
        return rows


class GveAuthors(LaterAuthors):
    """A user's turn alone, to which the chat template adds the default system message; 4 to 256 visual tokens."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.processor.image_processor.size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 256 * 28 * 28}
        lvlm = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
        self.model = lvlm.eval().requires_grad_(False).model

    def render(self, content: list[dict], query: bool) -> str:
        assert not query  # they have no instruction
        turns = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def inputs(self, rows: Sequence[str], pictures: Sequence[Image.Image] | None) -> Inputs:
        chosen = [None] * len(rows) if pictures is None else [[one] for one in pictures]
        each = [dict(self.processor(text=[row], images=one)) for row, one in zip(rows, chosen, strict=True)]
        behind = {"input_ids": END, "attention_mask": 1, "mm_token_type_ids": 0}
        padding = {"input_ids": END, "attention_mask": 0, "mm_token_type_ids": 0}
        made = {}
        for key in each[0]:
            if key in behind:
                ended = [torch.tensor([*one[key][0], behind[key]]) for one in each]
                made[key] = torch.nn.utils.rnn.pad_sequence(ended, batch_first=True, padding_value=padding[key])
            else:
                made[key] = torch.cat([torch.as_tensor(one[key]) for one in each])
        return made

    def appended(self, rows: list[list[int]]) -> list[list[int]]:
        return [[*row, END] for row in rows]


class Qwen3Authors(LaterAuthors):
    """A system turn with the instruction; pictures are sized before the processor, which leaves them as they are."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.model, info = Qwen3VLModel.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
        assert not info["missing_keys"]
        self.model.eval().requires_grad_(False)

    def render(self, content: list[dict], query: bool) -> str:
        instruction = [{"type": "text", "text": QUERY if query else DOCUMENT}]
        turns = [{"role": "system", "content": instruction}, {"role": "user", "content": content}]
        return self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def inputs(self, rows: Sequence[str], pictures: Sequence[Image.Image] | None) -> Inputs:
        for one in pictures or ():
            assert one.width == one.height and one.width % 32 == 0 and 64 <= one.width <= 1344  # else they resize
        images = None if pictures is None else list(pictures)
        options = {"padding": True, "truncation": True, "max_length": 8192, "do_resize": False}
        return dict(self.processor(text=list(rows), images=images, return_tensors="pt", **options))


def of(name: str, directory: Path) -> LaterAuthors:
    """Load a profile's repository as its authors do."""
    return (Qwen3Authors if name in QWEN3 else GveAuthors)(directory)
