"""The sequence contract: fixed ids, soft slots, visual slots, summary position.

All rows of the trunk are laid out here, so the tokenizer, the towers, the trainer and the export agree by construction.
Rows are right-padded without a padding mask, and the summary token is found by index.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import nn

from vladva_clip.encoder import templates
from vladva_clip.encoder.recording import is_exporting
from vladva_clip.encoder.rewriting import CaptionRewriter
from vladva_clip.encoder.templates import Template
from vladva_clip.encoder.token_rows import last_eot
from vladva_clip.storage.config import PromptConfig
from vladva_clip.storage.prompt_config import VisualSpan


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
    """Both templates and the second turn of a model as ids, and the layouts of its rows."""

    image: Template
    text: Template
    second_turn: tuple[int, ...]  # from behind the summary token up to the long caption; may be empty
    visual_opening: tuple[int, ...]
    visual_slot: int
    visual_closing: tuple[int, ...]
    eot_token_id: int
    rewriter: CaptionRewriter | None = field(default=None, compare=False, repr=False)

    @classmethod
    def build(cls, tokenizer, config: PromptConfig, visual: VisualSpan, starts_with_bos: bool) -> "Prompts":
        """Tokenize both templates and the second turn.

        Raises:
            ValueError: the config's numbers of soft slots differ from the tokenizer's; as `templates.tokenize`.
        """
        image, text = (
            templates.tokenize(tokenizer, config, side, visual, starts_with_bos) for side in ("image", "text")
        )
        _check_count("image", config.num_image_soft_tokens, image)
        _check_count("text", config.num_text_soft_tokens, text)
        opening, closing = (templates.special_ids(tokenizer, text) for text in (visual.opening, visual.closing))
        slot = templates.special_ids(tokenizer, visual.slot)
        if len(slot) != 1:
            raise ValueError(f"the visual span's slot is {visual.slot!r:.80}, {len(slot)} tokens; expected one token")
        second_turn = templates.tokenize_second_turn(tokenizer, config, visual)
        rewriter = CaptionRewriter.build(tokenizer, config)
        return cls(image, text, second_turn, opening, slot[0], closing, tokenizer.eos_token_id, rewriter)

    def image_row(self, num_visual_tokens: int) -> list[int]:
        """Return the ids of an image sequence with its visual slots; the last one is the summary token."""
        visual = (*self.visual_opening, *[self.visual_slot] * num_visual_tokens, *self.visual_closing)
        return [*self.image.before, *visual, *self.image.suffix]

    def image_batch(self, batch_size: int, num_visual_tokens: int) -> SequenceBatch:
        """Lay out `batch_size` equal image rows: BOS, prefix, visual span, suffix."""
        row, template = torch.tensor(self.image_row(num_visual_tokens)), self.image
        soft, visual = torch.zeros_like(row, dtype=torch.bool), torch.zeros_like(row, dtype=torch.bool)
        soft[: len(template.before)] = torch.tensor(template.soft_before)
        soft[len(row) - len(template.suffix) :] = torch.tensor(template.soft_after)
        start = len(template.before) + len(self.visual_opening)
        visual[start : start + num_visual_tokens] = True
        ids, soft, visual = (t.expand(batch_size, -1) for t in (row, soft, visual))
        return SequenceBatch(ids, soft, visual, torch.full((batch_size,), len(row) - 1), start)

    def continued_batch(self, captions: Sequence[torch.Tensor | None], num_visual_tokens: int) -> SequenceBatch:
        """Lay out image rows that go on with the second turn and a caption's ids, then zeros up to the longest row.

        The summary token can't see what follows it (attention is causal), so one row serves both the image feature and
        next-token prediction (VladVA, section 3.2.3).

        Args:
            captions: one per image, 1-D int64 with the end of text, or empty to ask for a caption; None for an image
                whose row ends with the summary token.
            num_visual_tokens: number of visual slots of an image.
        """
        batch, turn = (
            self.image_batch(len(captions), num_visual_tokens),
            torch.tensor(self.second_turn, dtype=torch.long),
        )
        ids = [turn.new_zeros(0) if caption is None else torch.cat([turn, caption]) for caption in captions]
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
            captions: 1-D int64 tensors of caption ids as the model's tokenizer writes them, without eot.

        Raises:
            ValueError: a row without any token: an empty caption whose template has no text of its own.
        """
        captions = captions if self.rewriter is None else self.rewriter(captions)
        template = self.text
        head, tail = len(template.before), len(template.suffix)
        lengths = torch.tensor([head + len(caption) + tail for caption in captions])
        _refuse_empty(lengths)
        ids = torch.zeros(len(captions), int(lengths.max()), dtype=torch.long)
        soft = torch.zeros_like(ids, dtype=torch.bool)
        start, end = (torch.tensor(part, dtype=torch.long) for part in (template.before, template.suffix))
        soft[:, :head] = torch.tensor(template.soft_before, dtype=torch.bool)
        soft_end = torch.tensor(template.soft_after, dtype=torch.bool)
        for row, marks, caption, length in zip(ids, soft, captions, lengths.tolist(), strict=True):
            row[:length] = torch.cat([start, caption, end])
            marks[length - tail : length] = soft_end
        return SequenceBatch(ids, soft, torch.zeros_like(soft), lengths - 1)

    def whole_text_batch(self, tokens: torch.Tensor) -> SequenceBatch:
        """Lay out the rows of `text_batch` with tensor operations alone, so that `torch.export` can record them.

        Args:
            tokens: `(N, L)` int64: ids, one eot, zeros; not checked here (see `token_rows.foreign_rows`).

        Returns:
            Rows of the greatest length that L allows, whatever the captions' lengths.
        """
        if self.rewriter is not None:
            raise ValueError(
                "torch.export can't record this text tower: its query template needs captions to be tokenized again. "
                "Export the model of the tag 'default', or run this one itself"
            )
        before, after = self.text.before, self.text.suffix
        num_rows, width = tokens.shape
        head, tail = (tokens.new_tensor(ids) for ids in (before, after))
        soft_head = torch.tensor(self.text.soft_before, dtype=torch.bool, device=tokens.device)
        soft_tail = torch.tensor((*self.text.soft_after, False), dtype=torch.bool, device=tokens.device)
        ends = last_eot(tokens, self.eot_token_id).clamp(min=0)[:, None] + len(before)  # (N, 1)
        places = torch.arange(len(before) + width - 1 + len(after), device=tokens.device)[None]  # (1, T)
        behind = places - ends  # (N, T): 0 and up is an index into the suffix
        captions = torch.cat([head.expand(num_rows, -1), tokens[:, : width - 1]], dim=1)
        captions = torch.cat([captions, tokens.new_zeros(num_rows, len(after))], dim=1)
        in_suffix, of_suffix = (behind >= 0) & (behind < len(after)), behind.clamp(0, len(after))
        ids = torch.where(in_suffix, F.pad(tail, (0, 1))[of_suffix], captions * (behind < 0))
        in_head = torch.cat([soft_head, soft_head.new_zeros(places.shape[1] - len(before))])
        soft = in_head | (in_suffix & soft_tail[of_suffix])
        return SequenceBatch(ids, soft, torch.zeros_like(soft), ends[:, 0] + len(after) - 1)

    def text_length(self, caption_length: int) -> int:
        """Return the tokens in the text row of a caption with `caption_length` ids."""
        return len(self.text.before) + len(self.text.suffix) + caption_length


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


def _refuse_empty(lengths: torch.Tensor) -> None:
    if not lengths.all():
        raise ValueError(
            "a caption is empty, and this model's text template adds nothing to it: without a token there is no state "
            "to take as its feature; leave empty captions out"
        )


def _check_count(side: str, stated: int | None, template: Template) -> None:
    found = len(template.soft_ids)
    if stated is not None and stated != found:
        raise ValueError(
            f"the config states {stated} {side} soft slots, but its template has {found} tokens with this base's "
            "tokenizer: the adapter was made with another tokenizer or template"
        )
