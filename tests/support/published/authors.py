"""How the authors of published embedders compute a feature, written from their code; nothing of ours is used.

Their strings stand here as they write them. They call transformers' processor and the stock class, read one position
of the last hidden states, and normalize. Most of them hand embeddings to the text model without positions, which
counts 0, 1, 2, ... on all three axes; Ops-MM calls the model on the processor's output, which makes M-RoPE.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

VISION = "<|vision_start|><|image_pad|><|vision_end|>"
SYSTEM = "You are a helpful assistant."
TOKEN = 28 * 28  # pixels


@dataclass(frozen=True)
class Way:
    """One author's way.

    Attributes:
        image: the row of a picture, as text for the processor (from a function of the processor).
        text: the row of a caption (from a function of the processor and the caption).
        query: the row of a caption that asks for a picture; None where the authors have no instruction.
        pool: (attention mask, ids) -> the index of the pooled position of each row.
        mrope: whether pictures get the family's positions.
        padding_side: of a batch.
        budget: the least and greatest number of visual tokens that they give the processor; None for the file's.
    """

    image: Callable[["Authors"], str]
    text: Callable[["Authors", str], str]
    query: Callable[["Authors", str], str] | None
    pool: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    mrope: bool = False
    padding_side: str = "right"
    budget: tuple[int, int] | None = (256, 1280)


class Authors:
    """A repository's weights and processor, used as its authors do.

    Args:
        directory: the repository's files.
        way: the authors' way.
    """

    def __init__(self, directory: Path, way: Way) -> None:
        self.way = way
        self.processor = AutoProcessor.from_pretrained(directory, padding_side=way.padding_side)
        if way.budget is not None:
            least, most = (tokens * TOKEN for tokens in way.budget)
            self.processor.image_processor.size = {"shortest_edge": least, "longest_edge": most}
        self.lvlm = Qwen2VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
        self.lvlm.eval().requires_grad_(False)

    def inputs(self, rows: Sequence[str], pictures: Sequence[Image.Image] | None = None) -> dict[str, torch.Tensor]:
        """Return what the processor makes of rows."""
        images = None if pictures is None else [picture.convert("RGB") for picture in pictures]
        return dict(self.processor(text=list(rows), images=images, padding=True, return_tensors="pt"))

    def text_inputs(self, captions: Sequence[str], query: bool = False) -> dict[str, torch.Tensor]:
        """Return what the processor makes of captions."""
        render = self.way.query if query else self.way.text
        return self.inputs([render(self, caption) for caption in captions])

    def image_inputs(self, pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Return what the processor makes of pictures."""
        return self.inputs([self.way.image(self)] * len(pictures), pictures)

    def features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the normalized features `(B, D)` of rows."""
        states = self._mrope_states(inputs) if self.way.mrope else self._plain_states(inputs)
        places = self.way.pool(inputs["attention_mask"], inputs["input_ids"])
        return torch.nn.functional.normalize(states[torch.arange(len(states)), places], p=2, dim=1)

    def ids(self, inputs: dict[str, torch.Tensor]) -> list[list[int]]:
        """Return the ids of each row up to the pooled one, without padding."""
        mask, ids = inputs["attention_mask"], inputs["input_ids"]
        ends = self.way.pool(mask, ids)
        return [ids[row, : end + 1][mask[row, : end + 1].bool()].tolist() for row, end in enumerate(ends.tolist())]

    def ids_of_texts(self, captions: Sequence[str], query: bool = False) -> list[list[int]]:
        """Return the ids of many captions' rows up to the pooled one, without padding them."""
        render = self.way.query if query else self.way.text
        rows = self.processor.tokenizer([render(self, caption) for caption in captions]).input_ids
        ends = [int(self.way.pool(torch.ones(1, len(row), dtype=torch.long), torch.tensor([row]))) for row in rows]
        return [row[: end + 1] for row, end in zip(rows, ends, strict=True)]

    def _mrope_states(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        self.lvlm.model.rope_deltas = None
        return self.lvlm.model(**inputs).last_hidden_state

    def _plain_states(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        embeddings = self.lvlm.get_input_embeddings()(inputs["input_ids"])
        if "pixel_values" in inputs:
            visual = self.lvlm.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
            slots = (inputs["input_ids"] == self.lvlm.config.image_token_id).unsqueeze(-1).expand_as(embeddings)
            embeddings = embeddings.masked_scatter(slots, visual)
        text_model = self.lvlm.model.language_model
        return text_model(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"]).last_hidden_state


def _last_unmasked(mask: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return mask.sum(dim=1) - 1


def _last_column(mask: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.full((len(ids),), ids.shape[1] - 1)


def _written(content: str, system: str = SYSTEM, end: str = "<|endoftext|>") -> str:
    """The string that GME, Ops-MM and RzenEmbed build."""
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n{end}"
    )


GME = Way(
    image=lambda _: _written(VISION),
    text=lambda _, caption: _written(caption),
    query=lambda _, caption: _written(caption, "Find an image that matches the given text."),
    pool=_last_unmasked,
)
OPS = replace(GME, pool=_last_column, mrope=True, padding_side="left")
RZEN = replace(
    GME,
    image=lambda _: _written(f"{VISION}Represent the given image."),
    query=lambda _, caption: _written(f"Find me an everyday image that matches the given caption: {caption}"),
)


def _user(content: list[dict]) -> dict:
    return {"role": "user", "content": content}


def _unite(authors: Authors, *content: dict) -> str:
    render = authors.processor.apply_chat_template
    return render([_user(list(content))], tokenize=False, add_generation_prompt=True) + "<|endoftext|>"


UNITE = Way(
    image=lambda authors: _unite(
        authors, {"type": "image"}, {"type": "text", "text": "\nSummary above image in one word:"}
    ),
    text=lambda authors, caption: _unite(
        authors, {"type": "text", "text": f"{caption}\nSummary above sentence in one word:"}
    ),
    query=None,
    pool=_last_unmasked,
)


def _lamra(authors: Authors, *content: dict) -> str:
    """The evaluation's messages: the answer is `<emb>.`, and the model's feature is the state in front of `<emb>`."""
    authors.processor.tokenizer.add_tokens(["<emb>"])
    answer = {"role": "assistant", "content": [{"type": "text", "text": "<emb>."}]}
    return authors.processor.apply_chat_template(
        [_user(list(content)), answer], tokenize=False, add_generation_prompt=True
    )


def _before_emb(mask: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.where(ids == 151657)
    assert rows.tolist() == list(range(len(ids)))
    return columns - 1


_SENTENCE = "\nSummarize above sentence in one word: "
LAMRA = Way(
    image=lambda authors: _lamra(
        authors, {"type": "image"}, {"type": "text", "text": "\nSummarize above image in one word: "}
    ),
    text=lambda authors, caption: _lamra(authors, {"type": "text", "text": f"{caption}{_SENTENCE}"}),
    query=lambda authors, caption: _lamra(
        authors,
        {"type": "text", "text": f"Find me an everyday image that matches the given caption. {caption}{_SENTENCE}"},
    ),
    pool=_before_emb,
    padding_side="left",
    budget=None,
)
WAYS = {
    "ops-mm-2b": OPS,
    "ops-mm-7b": OPS,
    "gme-qwen2-vl-2b": GME,
    "gme-qwen2-vl-7b": GME,
    "rzenembed": RZEN,
    "unite-2b": UNITE,
    "lamra-ret": LAMRA,
}
