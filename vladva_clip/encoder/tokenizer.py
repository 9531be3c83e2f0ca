"""list[str] -> LongTensor (N, context_length): the base's own ids, one eot, then zeros."""

import numbers
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from open_clip.tokenizer import HFTokenizer

from vladva_clip.encoder.admission.processors import attempt, checked_copies, control_ids, mark_control_tokens
from vladva_clip.encoder.describe import prompt_of, write_prompt
from vladva_clip.encoder.templates import caption_ids
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.prompt_config import CaptionPlace, PromptConfig

CONTEXT_LENGTH = 256
_SURROGATE = re.compile("[\ud800-\udfff]")


class VladvaTokenizer(HFTokenizer):
    """open_clip's tokenizer interface over the base LVLM's own tokenizer.

    A row is the caption's ids (as they stand in the model's text template, no special tokens), one `eot_token_id` (also
    when truncated), then zeros. It can be pickled and holds no model. Words that look like special tokens ("</s>",
    "<image>") are plain text: a caption cannot change the prompt, whatever the tokenizer's files declare as special.

    Args:
        tokenizer_name: a local directory with the base's tokenizer files, or that directory opened.
        context_length: width of the rows in tokens, including eot.
        prompt: the model's templates. None takes those that the directory states or, for a bare LVLM, those of its
            family; captions are tokenized alone if the directory holds a tokenizer and nothing else.
        kwargs: further arguments of HFTokenizer (`clean`, `cache_dir`, ...).

    Raises:
        ValueError: no tokenizer in the directory, a tokenizer of an unsupported family, or a width below 2.
    """

    def __init__(
        self,
        tokenizer_name: str | Path | BaseFiles,
        context_length: int | None = CONTEXT_LENGTH,
        prompt: PromptConfig | None = None,
        **kwargs: typing.Any,
    ) -> None:
        kwargs |= {"context_length": _width(context_length, CONTEXT_LENGTH), "trust_remote_code": False}
        base = tokenizer_name if isinstance(tokenizer_name, BaseFiles) else BaseFiles(tokenizer_name)
        with checked_copies(base) as copies:
            attempt(lambda: HFTokenizer.__init__(self, str(copies), **kwargs), base.directory, "tokenizer")
        mark_control_tokens(self.tokenizer, base)
        self._control_ids = control_ids(self.tokenizer, base)
        self.prompt = prompt or prompt_of(base)
        if self.prompt and self.prompt.clean == "none" and "clean" not in kwargs:
            self.clean_fn = verbatim
        self.pad_token_id = 0  # of the rows; the base's own padding token is not used
        self.eot_token_id: int = self.tokenizer.eos_token_id
        self.sot_token_id: int | None = None  # a row has no start token: the model's template brings its own
        self.vocab_size: int = len(self.tokenizer)

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> torch.Tensor:
        """Tokenize one or more captions.

        Args:
            texts: a string, or any sequence of strings (list, tuple, numpy array).
            context_length: width of the result; the tokenizer's own by default.

        Returns:
            `(N, context_length)` int64; N = 1 for a bare string, 0 for an empty list.

        Raises:
            ValueError: not a string or a sequence of strings (dicts and sets are refused), or a width below 2.
        """
        width = _width(context_length, self.context_length)
        rows = self.ids(texts)
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        for row, ids in zip(tokens, rows, strict=True):
            ids = [*self.cut(ids, width - 1), self.eot_token_id]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def ids(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Return each caption's ids: cleaned as the templates say, no special tokens, not truncated."""
        return self._checked([self.clean_fn(text) for text in _as_list(texts)], self.caption_place)

    def long_ids(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Return the ids of long captions as they stand behind an image: line breaks kept, no special tokens."""
        return self._checked([text.strip() for text in _as_list(texts)], self.long_caption_place)

    def cut(self, ids: list[int], length: int) -> list[int]:
        """Cut a caption's ids to `length` at its end; in a published embedder's template, what stands behind stays."""
        if len(ids) <= length or not (kept := self._kept()):
            return ids[:length]
        return [*ids[: max(0, length - len(kept))], *kept][:length]

    def _kept(self) -> list[int]:  # not stored: what a tokenizer stores is its identity
        """Return the ids behind a caption that a cut must not take away."""
        place = self.caption_place
        keeps = place is not None and place.keeps_empty and place.behind
        return self.tokenizer(place.behind, add_special_tokens=False).input_ids if keeps else []

    def _checked(self, texts: list[str], place: CaptionPlace | None) -> list[list[int]]:
        rows = caption_ids(self.tokenizer, place, texts)
        for text, row in zip(texts, rows, strict=True):
            if not self._control_ids.isdisjoint(row):
                raise ValueError(
                    f"the tokenizer of {self.tokenizer.name_or_path} writes a control token for the caption "
                    f"{text!r:.80}: its vocabulary was damaged or tampered with; get the base's files again"
                )
        return rows

    @property
    def caption_place(self) -> CaptionPlace | None:
        """Where a caption stands (see `templates.caption_ids`)."""
        return self.prompt.caption_place if self.prompt else None

    @property
    def long_caption_place(self) -> CaptionPlace | None:
        """Where a long caption stands."""
        return self.prompt.long_caption_place if self.prompt else None

    def save_pretrained(self, dest: str | Path) -> None:
        """Write the tokenizer's files, and the templates that decide a caption's ids."""
        super().save_pretrained(dest)
        if self.prompt:
            write_prompt(Path(dest), self.prompt)

    def encode(self, text: str) -> list[int]:
        """Return one caption's ids, without eot."""
        return self.ids(text)[0]

    def decode(self, ids: Sequence[int] | torch.Tensor) -> str:
        """Return a caption's text from its ids, without special tokens."""
        text, place = self.tokenizer.decode(ids, skip_special_tokens=True), self.caption_place
        if place is None:
            return text
        front = place.front if place.keeps_empty else place.front or " "
        return text.removesuffix(place.behind).removeprefix(front)


def verbatim(text: str) -> str:
    """Return a caption as it is, but for halves of UTF-16 pairs, which no tokenizer reads (cleaning does the same)."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _width(context_length: int | None, default: int) -> int:
    if context_length is None:
        return default
    if not isinstance(context_length, numbers.Integral) or context_length < 2:
        raise ValueError(
            f"context_length is {context_length!r}, expected at least 2 tokens: one for the caption and the end of text"
        )
    return int(context_length)


def _as_list(texts: str | Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes | bytearray | Mapping | set | frozenset) or _is_table(texts):
        raise ValueError(
            f"captions are {type(texts).__name__} ({texts!r:.60}), expected a string or a sequence of strings in order"
        )
    try:
        texts = texts.ravel().tolist() if isinstance(texts, np.ndarray) else list(texts)
    except TypeError as error:
        raise ValueError(f"captions are {type(texts).__name__}, expected a string or a sequence of strings") from error
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"caption {position} is {type(text).__name__} ({text!r:.60}), expected a string")
    return texts


def _is_table(texts: typing.Any) -> bool:
    """Return whether it is a table such as a pandas DataFrame, whose iteration yields column names."""
    return not isinstance(texts, np.ndarray) and getattr(texts, "ndim", 1) > 1
