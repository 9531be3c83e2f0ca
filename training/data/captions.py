"""Separates short captions from long ones with the backbone's own tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass

from vladva_clip.encoder.templates import caption_ids
from vladva_clip.encoder.tokenizer import VladvaTokenizer, verbatim
from vladva_clip.storage.prompt_config import CaptionPlace, PromptConfig
from vladva_training.config import LONG_MAX_TOKENS, SHORT_MAX_TOKENS


@dataclass(frozen=True)
class SplitCaptions:
    """The captions of one image, split by length.

    Attributes:
        short: ids of the short captions, without special tokens.
        short_texts: their texts, in the same order.
        long: ids of the long captions, without special tokens.
        too_long: number of captions that are not used because they are even longer.
        empty: number of captions that are not used because they have no text.
    """

    short: tuple[tuple[int, ...], ...] = ()
    short_texts: tuple[str, ...] = ()
    long: tuple[tuple[int, ...], ...] = ()
    too_long: int = 0
    empty: int = 0


class CaptionSplitter:
    """Tokenizes captions and splits them by their number of ids.

    Short captions are cleaned of stray white space, as `VladvaTokenizer` does before `encode_text`. Long captions keep
    their line breaks, since the model should learn to write them. Words that look like special tokens are plain text.

    Args:
        tokenizer: the backbone's: `vladva_clip.get_tokenizer(...)` or a transformers tokenizer.
        short_max_tokens: a caption with fewer ids is short.
        long_max_tokens: a caption with `short_max_tokens` to this many ids is long; one with more is not used.
        prompt: for a transformers tokenizer, the model's templates, in which captions have their ids; None tokenizes
            captions alone.

    Raises:
        ValueError: limits that allow no short or no long caption.
    """

    def __init__(
        self,
        tokenizer,
        short_max_tokens: int = SHORT_MAX_TOKENS,
        long_max_tokens: int = LONG_MAX_TOKENS,
        prompt: PromptConfig | None = None,
    ) -> None:
        if not 2 <= short_max_tokens <= long_max_tokens:
            raise ValueError(
                f"short_max_tokens is {short_max_tokens} and long_max_tokens is {long_max_tokens}; expected at least 2 "
                "for short captions and at least as many for long ones"
            )
        self.short_max_tokens, self.long_max_tokens = short_max_tokens, long_max_tokens
        ours = isinstance(tokenizer, VladvaTokenizer)
        self._tokenizer = tokenizer.tokenizer if ours else tokenizer
        as_they_are = prompt is not None and prompt.clean == "none"
        self._clean = tokenizer.clean_fn if ours else verbatim if as_they_are else _collapse_white_space
        places = tokenizer if ours else prompt
        self._short = places.caption_place if places else None
        self._long = places.long_caption_place if places else None

    def split(self, captions: Iterable[str]) -> SplitCaptions:
        """Tokenize captions and separate short from long ones."""
        captions = list(captions)
        cleaned = [(text, caption.strip()) for caption in captions if (text := self._clean(caption)).strip()]
        short, short_texts, long = [], [], []
        rows = self._ids(self._short, [text for text, _ in cleaned])
        for (text, raw), ids in zip(cleaned, rows, strict=True):
            if len(ids) < self.short_max_tokens:
                short.append(ids)
                short_texts.append(text)
                continue
            ids = ids if raw == text and self._short == self._long else self._ids(self._long, [raw])[0]
            if len(ids) <= self.long_max_tokens:
                long.append(ids)
        too_long = len(cleaned) - len(short) - len(long)
        return SplitCaptions(tuple(short), tuple(short_texts), tuple(long), too_long, len(captions) - len(cleaned))

    def cleaned(self, text: str) -> str:
        """Return a caption as `SplitCaptions.short_texts` has it."""
        return self._clean(text)

    def _ids(self, place: CaptionPlace | None, texts: list[str]) -> list[tuple[int, ...]]:
        return [tuple(row) for row in caption_ids(self._tokenizer, place, texts)]


def _collapse_white_space(text: str) -> str:
    return " ".join(text.split())
