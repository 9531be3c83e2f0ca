"""Captions' ids of one text template -> those of another, for models that share a tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vladva_clip.encoder.templates import caption_ids
from vladva_clip.storage.prompt_config import CaptionPlace, PromptConfig


@dataclass(frozen=True)
class CaptionRewriter:
    """Rewrites ids through their text: where a caption follows a space, its first ids differ from behind a line break.

    Attributes:
        tokenizer: the base's transformers tokenizer.
        written: where the tokenizer saw the captions.
        place: where they stand in the model's text template.
    """

    tokenizer: Any
    written: CaptionPlace
    place: CaptionPlace

    @classmethod
    def build(cls, tokenizer: Any, config: PromptConfig) -> "CaptionRewriter | None":
        """Return what a model with these templates needs; None if its tokenizer writes the ids as they are."""
        written, place = config.caption_place, config.text_place
        if written is None or place is None or _alike(written, place):
            return None
        return cls(tokenizer, written, place)

    def __call__(self, captions: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Rewrite captions, 1-D int64 without the end of text."""
        texts = [self._text(ids) for ids in captions]
        return [torch.tensor(ids, dtype=torch.long) for ids in caption_ids(self.tokenizer, self.place, texts)]

    def _text(self, ids: torch.Tensor) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.removeprefix(self.written.front).removesuffix(self.written.behind)


def _alike(one: CaptionPlace, other: CaptionPlace) -> bool:
    return (one.front, one.behind, one.keeps_empty) == (other.front, other.behind, other.keeps_empty)
