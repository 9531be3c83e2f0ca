"""Templates as tokens of their own: each id of a template gets a vocabulary row and a special token.

A soft slot's row is its vector, a fixed id's row a copy of its embedding. So nothing in a template can merge with a
caption, whatever a tokenizer puts before a text.
"""

from dataclasses import dataclass, replace

import torch
from transformers import AddedToken, PreTrainedTokenizerBase

from vladva_clip.encoder.prompts import Prompts
from vladva_clip.encoder.templates import Template
from vladva_clip.storage.prompt_config import CaptionPlace, PromptConfig

_PAD_ROWS_TO = 64  # an enlarged vocabulary is a multiple of this, for tensor-parallel servers


@dataclass(frozen=True)
class Slots:
    """The ids of both templates (without BOS and visual span) as special tokens.

    image and text: the tokens' names in order. first_id: the id of the first token; ids are consecutive, image before
    text. num_rows: rows of the exported embedding.
    """

    image: tuple[str, ...]
    text: tuple[str, ...]
    first_id: int
    num_rows: int

    @property
    def ids(self) -> range:
        """The tokens' ids, image before text."""
        return range(self.first_id, self.first_id + len(self.image) + len(self.text))

    @property
    def last_id(self) -> int:
        """The largest id."""
        return self.ids[-1]


def add_slots(tokenizer: PreTrainedTokenizerBase, prompts: Prompts, rows: int) -> Slots:
    """Add a special token for each id of the templates to the tokenizer, in place.

    The base's unused rows are taken first: often a tokenizer has fewer tokens than the embedding has rows. A special
    token beyond the rows, which no caption has, gets one too.

    Args:
        tokenizer: the base's tokenizer.
        prompts: the model's templates.
        rows: rows of the base's embedding.

    Raises:
        ValueError: the base is broken (words beyond the rows), or its vocabulary already has our tokens.
    """
    used = max(tokenizer.get_vocab().values()) + 1
    _check_words(tokenizer, rows)
    names = {side: _names(side, getattr(prompts, side)) for side in ("image", "text")}
    every = [*names["image"], *names["text"]]
    if taken := sorted(set(every) & set(tokenizer.get_vocab())):
        raise ValueError(f"the base's tokenizer already has the token {taken[0]!r}: it is itself an export, or a copy")
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in every], special_tokens=True)
    slots = Slots(names["image"], names["text"], used, _enlarged(rows, used + len(every)))
    if (found := tokenizer.convert_tokens_to_ids(every)) != list(slots.ids):
        raise ValueError(f"the tokenizer gave the new tokens the ids {found[:4]}..., expected {used} onwards")
    return slots


def _check_words(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    added = tokenizer.added_tokens_decoder
    beyond = {number for number in tokenizer.get_vocab().values() if number >= rows}
    if words := {number for number in beyond if number not in added or not added[number].special}:
        raise ValueError(
            f"the base's tokenizer has ids up to {max(words)}, but its embedding has only {rows} rows: the two don't "
            "belong together; get the base's files again"
        )


def fill_rows(
    embedding: torch.Tensor, slots: Slots, prompts: Prompts, soft_prompt: dict[str, torch.Tensor] | None
) -> torch.Tensor:
    """Return the embedding `(num_rows, D)` with the templates' vectors in their rows; other new rows are zero.

    Args:
        embedding: the base's embedding `(rows, D)`; its dtype is kept.
        slots: the vectors' rows.
        prompts: the model's templates.
        soft_prompt: "image" and "text", each `(num_soft_tokens, D)`; None for hand-written prompts.
    """
    filled = embedding.new_zeros(slots.num_rows, embedding.shape[1])
    filled[: len(embedding)] = embedding
    vectors = [_vectors(embedding, getattr(prompts, side), (soft_prompt or {}).get(side)) for side in ("image", "text")]
    filled[slots.first_id : slots.last_id + 1] = torch.cat(vectors)
    return filled


def enlarge_head(head: torch.Tensor, slots: Slots) -> torch.Tensor:
    """Return an untied head `(num_rows, D)`; new rows are the mean of the others: their logit is never the largest."""
    new = slots.num_rows - len(head)
    return torch.cat([head, head.float().mean(dim=0, keepdim=True).to(head.dtype).expand(new, -1)]) if new else head


def slot_templates(config: PromptConfig, prompts: Prompts, slots: Slots) -> PromptConfig:
    """Return the templates spelled in the slots' tokens: tokenized, they give the slots' ids around the hole.

    A caption keeps the space in front of it and the line breaks behind it, and with them its ids.
    """
    image = _spell(slots.image, prompts.image, "{visual}")
    place = config.text_place or CaptionPlace("")
    text = _spell(slots.text, prompts.text, f"{place.front}{{caption}}{place.behind}")
    counts = {"num_image_soft_tokens": len(slots.image), "num_text_soft_tokens": len(slots.text)}
    spelled = {"image_template": image, "text_template": text, "image_prompt": "", "text_prompt": ""}
    spelled |= {"tokens_template": None}
    return replace(config, **spelled, **counts, soft_slots="template")


def _vectors(embedding: torch.Tensor, template: Template, soft_prompt: torch.Tensor | None) -> torch.Tensor:
    vectors = embedding[list(template.ids)]
    if soft_prompt is not None:
        vectors[torch.tensor(template.soft)] = soft_prompt.to(vectors.dtype)
    return vectors


def _names(side: str, template: Template) -> tuple[str, ...]:
    return tuple(f"<|vladva_{side}_{index}|>" for index in range(len(template.ids)))


def _spell(names: tuple[str, ...], template: Template, hole: str) -> str:
    border = len(template.prefix)
    return "".join([*names[:border], hole, *names[border:]])


def _enlarged(rows: int, needed: int) -> int:
    return rows if needed <= rows else -(-needed // _PAD_ROWS_TO) * _PAD_ROWS_TO
