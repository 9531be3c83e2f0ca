"""open_clip's words for a precision, the only ones that options, recipe keys and keywords take. Needs no torch."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

DTYPES = {  # word -> dtype of the weights; "amp" means fp32 weights under the caller's autocast
    **dict.fromkeys(("fp32", "amp", "amp_bf16", "amp_bfloat16", "pure_fp32"), "float32"),
    **dict.fromkeys(("bf16", "pure_bf16"), "bfloat16"),
    **dict.fromkeys(("fp16", "pure_fp16"), "float16"),
}
WORDS = tuple(DTYPES)
_WERE_DTYPES = {"batch.autocast"}  # recipe keys that held dtypes in earlier versions
_PLAIN = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}  # dtype -> its shortest word
_ELSEWHERE = {  # the spelling of torch, numpy, Lightning or safetensors -> our word
    **_PLAIN,
    **dict.fromkeys(("float", "single", "f32", "32", "32-true", "full"), "fp32"),
    **dict.fromkeys(("bfloat", "bf16-true", "bf16-mixed"), "bf16"),
    **dict.fromkeys(("half", "f16", "16", "16-true", "16-mixed"), "fp16"),
}


def parse(where: str, value: Any, words: Sequence[str] = WORDS) -> str:
    """Return a precision as one of the words.

    Args:
        where: the value's name for the error message, such as "--precision" or "model.precision".
        value: a word, or a `torch.dtype`, for which its word is returned.
        words: the words that are valid there.

    Raises:
        ValueError: anything else, including other programs' spellings; the message lists the words and the likely one.
    """
    is_dtype = (type(value).__module__, type(value).__name__) == ("torch", "dtype")
    word = _PLAIN.get(str(value).removeprefix("torch.")) if is_dtype else value
    if isinstance(word, str) and word in words:
        return word
    raise ValueError(f"{where} is {str(value)!r:.60}, expected one of {', '.join(words)}{_hint(str(value), words)}")


def optional(where: str, value: Any) -> str | None:
    """Return a precision as `parse` does; None, which asks for nothing, stays None."""
    return None if value is None else parse(where, value)


def of_dtype(dtype: str) -> str:
    """Return the word for a dtype's name, such as "bf16" for "bfloat16" or "torch.bfloat16"; other text unchanged."""
    return _PLAIN.get(dtype.removeprefix("torch."), dtype)


def in_words(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a stored recipe with the dtypes that earlier versions wrote replaced by today's words."""
    return recipe | {key: of_dtype(recipe[key]) for key in _WERE_DTYPES & set(recipe) if isinstance(recipe[key], str)}


def refuse_other_names(keywords: dict[str, Any]) -> None:
    """Refuse the keywords that transformers and our earlier versions use for a precision.

    Raises:
        TypeError: `dtype` or `torch_dtype`; the message says what to write instead.
    """
    for name in ("dtype", "torch_dtype"):
        if name in keywords:
            raise TypeError(f'{name} is called precision here: write precision="{meant(str(keywords[name]))}"')


def add_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the option `--precision` to a parser. Its word is checked at once; without the option it is None.

    `--dtype`, its name in earlier versions, is refused with a message that says what to write instead: its values in
    torch's spelling are not among the words.

    Args:
        parser: the command's parser.
        default: what applies without the option, for the help text.
    """
    words = f"precision of the weights: fp32, bf16, fp16 or another of open_clip's words (default: {default})"
    parser.add_argument("--precision", action=_Word, metavar="WORD", help=words)
    parser.add_argument("--dtype", action=_Renamed, dest="precision", help=argparse.SUPPRESS)


class _Word(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, parse(option or self.dest, values))
        except ValueError as error:
            parser.error(str(error))


class _Renamed(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        parser.error(f"{option} is called --precision: say --precision {meant(values)}")


def meant(text: str) -> str:
    """Return the word for another program's spelling of a precision; all words, for the user to choose, if unclear."""
    return _meant(text, WORDS) or "|".join(WORDS)


def _meant(text: str, words: Sequence[str]) -> str | None:
    """The word for another spelling of it; None where there is none."""
    plain = text.strip().lower().removeprefix("torch.")
    word = plain if plain in words else _ELSEWHERE.get(plain)
    return word if word in words else None


def _hint(text: str, words: Sequence[str]) -> str:
    if word := _meant(text, words):
        return f"; write {word}"
    near = difflib.get_close_matches(text.lower(), words, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
