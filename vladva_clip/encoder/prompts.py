"""The sequence contract: fixed ids, soft slots, visual slots, summary position.

All rows of the trunk are laid out here, so the tokenizer, the towers, the trainer and the export agree by construction.
Rows are right-padded without a padding mask, and the summary token is found by index.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from vladva_clip.encoder.recording import is_exporting
from vladva_clip.encoder.token_rows import last_eot
from vladva_clip.storage.config import PromptConfig, VisualSpan


@dataclass(frozen=True)
class Template:
    """A hand-written prompt as ids: `bos` is fixed; `prefix` and `suffix` surround the hole and are soft slots."""

    bos: tuple[int, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @property
    def soft_ids(self) -> tuple[int, ...]:
        """The ids that initialize a soft prompt, in slot order; the last one is the summary token."""
        return self.prefix + self.suffix


def tokenize_template(tokenizer, template: str, hole: str, visual: VisualSpan, starts_with_bos: bool) -> Template:
    """Tokenize a template's pieces as the base's own processor would around an image.

    The hole is filled with the visual span, and the ids are split there. No piece can merge across its special tokens,
    so the image sequence equals the processor's own, and the text template gets the same borders.

    Args:
        tokenizer: the base's transformers tokenizer.
        template: a literal prompt with one hole.
        hole: the hole's spelling, "{visual}" or "{caption}".
        visual: the family's visual span.
        starts_with_bos: whether the family's rows begin with BOS. The tokenizer's own choice is ignored: it depends
            on settings that some published files lack.

    Raises:
        ValueError: nothing follows the hole, so there is no summary token.
    """
    ids = tokenizer(template.replace(hole, visual.text), add_special_tokens=False).input_ids
    span = tokenizer(visual.text, add_special_tokens=False).input_ids
    start = _find(ids, span)
    bos = (tokenizer.bos_token_id,) if starts_with_bos else ()
    prefix, suffix = tuple(ids[:start]), tuple(ids[start + len(span) :])
    if not suffix:
        raise ValueError(f"the template {template!r} ends with its hole; the summary token must follow it")
    return Template(bos, prefix, suffix)


def _find(ids: list[int], span: list[int]) -> int:
    for start in range(len(ids) - len(span) + 1):
        if ids[start : start + len(span)] == span:
            return start
    raise ValueError(
        f"the tokenizer splits the visual span {span}, expected it whole; does this tokenizer belong to the base?"
    )


class SoftPrompt(nn.Module):
    """The vectors of a template's soft slots, `(num_soft_tokens, D)`; before training, the template's embeddings.

    They stay float32 over a bf16 base, so that they train in float32 and are stored without loss.
    """

    def __init__(self, embeddings: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(embeddings.detach().float().clone())

    @property
    def num_soft_tokens(self) -> int:
        """Number of soft slots."""
        return self.weight.shape[0]


@dataclass(frozen=True)
class SequenceBatch:
    """The layout of rows, before any embedding is looked up (`rows.Rows` runs it).

    Attributes:
        input_ids: `(B, T)` int64; slots hold the hand-written ids.
        soft_mask, visual_mask: `(B, T)` bool, the slots.
        summary_index: `(B,)` int64.
        visual_start: index of the first visual slot, the same in each row; None for text rows.
    """

    input_ids: torch.Tensor
    soft_mask: torch.Tensor
    visual_mask: torch.Tensor
    summary_index: torch.Tensor
    visual_start: int | None = None

    def to(self, device: torch.device | str) -> "SequenceBatch":
        """Return the batch on another device."""
        names = ("input_ids", "soft_mask", "visual_mask", "summary_index")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class Prompts:
    """Both templates of a model as ids, and the layouts of its rows."""

    image: Template
    text: Template
    visual_opening: tuple[int, ...]
    visual_slot: int
    visual_closing: tuple[int, ...]
    eot_token_id: int

    @classmethod
    def build(cls, tokenizer, config: PromptConfig, visual: VisualSpan, starts_with_bos: bool) -> "Prompts":
        """Tokenize both templates.

        Raises:
            ValueError: the config's numbers of soft slots differ from the tokenizer's.
        """
        opening, closing = (_special_ids(tokenizer, text) for text in (visual.opening, visual.closing))
        image = tokenize_template(tokenizer, config.image_template, "{visual}", visual, starts_with_bos)
        text = tokenize_template(tokenizer, config.text_template, "{caption}", visual, starts_with_bos)
        (slot,) = _special_ids(tokenizer, visual.slot)
        _check_count("image", config.num_image_soft_tokens, image)
        _check_count("text", config.num_text_soft_tokens, text)
        return cls(image, text, opening, slot, closing, tokenizer.eos_token_id)

    def image_row(self, num_visual_tokens: int) -> list[int]:
        """Return the ids of an image sequence with its visual slots; the last one is the summary token."""
        visual = (*self.visual_opening, *[self.visual_slot] * num_visual_tokens, *self.visual_closing)
        return [*self.image.bos, *self.image.prefix, *visual, *self.image.suffix]

    def image_batch(self, batch_size: int, num_visual_tokens: int) -> SequenceBatch:
        """Lay out `batch_size` equal image rows: BOS, prefix, visual span, suffix."""
        row = torch.tensor(self.image_row(num_visual_tokens))
        soft, visual = torch.zeros_like(row, dtype=torch.bool), torch.zeros_like(row, dtype=torch.bool)
        first = len(self.image.bos)
        soft[first : first + len(self.image.prefix)] = True
        soft[len(row) - len(self.image.suffix) :] = True
        start = first + len(self.image.prefix) + len(self.visual_opening)
        visual[start : start + num_visual_tokens] = True
        ids, soft, visual = (t.expand(batch_size, -1) for t in (row, soft, visual))
        return SequenceBatch(ids, soft, visual, torch.full((batch_size,), len(row) - 1), start)

    def continued_batch(self, captions: Sequence[torch.Tensor | None], num_visual_tokens: int) -> SequenceBatch:
        """Lay out image rows, each with a caption's ids after the summary token, then zeros up to the longest row.

        The summary token can't see the caption (attention is causal), so one row serves both the image feature and
        next-token prediction (VladVA, section 3.3).

        Args:
            captions: one per image, 1-D int64 with the end of text; None for an image without one.
            num_visual_tokens: number of visual slots of an image.
        """
        batch = self.image_batch(len(captions), num_visual_tokens)
        ids = [batch.input_ids.new_zeros(0) if caption is None else caption for caption in captions]
        ids = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        nothing = torch.zeros_like(ids, dtype=torch.bool)
        tails = {"input_ids": ids, "soft_mask": nothing, "visual_mask": nothing}
        return replace(batch, **{name: torch.cat([getattr(batch, name), tail], 1) for name, tail in tails.items()})

    def chat_batch(self, batch_size: int, num_visual_tokens: int, chat_ids: list[int]) -> SequenceBatch:
        """Lay out `batch_size` equal rows of a rendered chat; its one visual slot is repeated, and no slot is soft.

        Raises:
            ValueError: the chat doesn't have exactly one visual slot.
        """
        if chat_ids.count(self.visual_slot) != 1:
            raise ValueError(f"the chat has {chat_ids.count(self.visual_slot)} visual slots, expected 1 per image")
        start = chat_ids.index(self.visual_slot)
        row = torch.tensor([*chat_ids[:start], *[self.visual_slot] * num_visual_tokens, *chat_ids[start + 1 :]])
        ids = row.expand(batch_size, -1)
        return SequenceBatch(
            ids,
            torch.zeros_like(ids, dtype=torch.bool),
            ids == self.visual_slot,
            torch.full((batch_size,), len(row) - 1),
            start,
        )

    def text_batch(self, captions: Sequence[torch.Tensor]) -> SequenceBatch:
        """Lay out text rows: BOS, prefix, caption ids, suffix, then zeros up to the longest row.

        Args:
            captions: 1-D int64 tensors of caption ids, without eot.
        """
        template = self.text
        head = len(template.bos) + len(template.prefix)
        lengths = torch.tensor([head + len(caption) + len(template.suffix) for caption in captions])
        ids = torch.zeros(len(captions), int(lengths.max()), dtype=torch.long)
        soft = torch.zeros_like(ids, dtype=torch.bool)
        start, end = torch.tensor(template.bos + template.prefix), torch.tensor(template.suffix)
        for row, marks, caption, length in zip(ids, soft, captions, lengths.tolist(), strict=True):
            row[:length] = torch.cat([start, caption, end])
            marks[len(template.bos) : head] = True
            marks[length - len(template.suffix) : length] = True
        return SequenceBatch(ids, soft, torch.zeros_like(soft), lengths - 1)

    def whole_text_batch(self, tokens: torch.Tensor) -> SequenceBatch:
        """Lay out the rows of `text_batch` with tensor operations alone, so that `torch.export` can record them.

        Args:
            tokens: `(N, L)` int64: ids, one eot, zeros; not checked here (see `token_rows.foreign_rows`).

        Returns:
            Rows of the greatest length that L allows, whatever the captions' lengths.
        """
        template, before, after = self.text, [*self.text.bos, *self.text.prefix], self.text.suffix
        num_rows, width = tokens.shape
        head, tail = tokens.new_tensor(before), tokens.new_tensor(after)
        ends = last_eot(tokens, self.eot_token_id).clamp(min=0)[:, None] + len(before)  # (N, 1)
        places = torch.arange(len(before) + width - 1 + len(after), device=tokens.device)[None]  # (1, T)
        behind = places - ends  # (N, T): 0 and up is an index into the suffix
        captions = torch.cat([head.expand(num_rows, -1), tokens[:, : width - 1]], dim=1)
        captions = torch.cat([captions, tokens.new_zeros(num_rows, len(after))], dim=1)
        in_suffix = (behind >= 0) & (behind < len(after))
        ids = torch.where(in_suffix, tail[behind.clamp(0, len(after) - 1)], captions * (behind < 0))
        soft = in_suffix | ((places >= len(template.bos)) & (places < len(before)))
        return SequenceBatch(ids, soft, torch.zeros_like(soft), ends[:, 0] + len(after) - 1)

    def text_length(self, caption_length: int) -> int:
        """Return the tokens in the text row of a caption with `caption_length` ids."""
        return len(self.text.bos) + len(self.text.soft_ids) + caption_length


def fill(embeddings: torch.Tensor, mask: torch.Tensor, vectors: torch.Tensor, what: str) -> torch.Tensor:
    """Write vectors into the marked slots, row by row; gradients reach both inputs.

    Args:
        embeddings: `(B, T, D)`.
        mask: `(B, T)` bool, the slots.
        vectors: `(S, D)`, in row-major order of the slots.
        what: a name for the vectors, for the error.

    Returns:
        `(B, T, D)`, a new tensor of the embeddings' dtype.

    Raises:
        ValueError: the numbers of vectors and slots differ.
    """
    if not is_exporting() and (slots := int(mask.sum())) != vectors.shape[0]:
        raise ValueError(
            f"{vectors.shape[0]} {what} for {slots} slots, expected one for each. Both numbers come from the config "
            "and the base, so the model was changed after loading: load it again"
        )
    return embeddings.masked_scatter(mask.unsqueeze(-1), vectors.to(embeddings.dtype))


def _special_ids(tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False).input_ids) if text else ()


def _check_count(side: str, stated: int | None, template: Template) -> None:
    found = len(template.soft_ids)
    if stated is not None and stated != found:
        raise ValueError(
            f"the config states {stated} {side} soft slots, but its template has {found} tokens with this base's "
            "tokenizer: the adapter was made with another tokenizer or template"
        )
