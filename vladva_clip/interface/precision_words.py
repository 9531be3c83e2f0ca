"""open_clip's words for a precision: the one set that every option, recipe key and keyword takes. Needs no torch."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

DTYPES = {  # word -> dtype of the weights; with "amp" they are fp32, and the autocast is the caller's
    **dict.fromkeys(("fp32", "amp", "amp_bf16", "amp_bfloat16", "pure_fp32"), "float32"),
    **dict.fromkeys(("bf16", "pure_bf16"), "bfloat16"),
    **dict.fromkeys(("fp16", "pure_fp16"), "float16"),
}
WORDS = tuple(DTYPES)
_WERE_DTYPES = {"batch.autocast"}  # keys of a recipe
_PLAIN = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}  # dtype -> its shortest word
_ELSEWHERE = {  # what torch, numpy, Lightning and safetensors write -> our word
    **_PLAIN,
    **dict.fromkeys(("float", "single", "f32", "32", "32-true", "full"), "fp32"),
    **dict.fromkeys(("bfloat", "bf16-true", "bf16-mixed"), "bf16"),
    **dict.fromkeys(("half", "f16", "16", "16-true", "16-mixed"), "fp16"),
}


def parse(where: str, value: Any, words: Sequence[str] = WORDS) -> str:
    """Return a precision as one of the words.

    Args:
        where: what holds the value, such as "--precision" or "model.precision"; named in the error.
        value: a word, or a `torch.dtype`, which becomes its word.
        words: those that have a meaning there.

    Raises:
        ValueError: anything else, another program's spelling too; the words are listed, and the one that is meant.
    """
    is_dtype = (type(value).__module__, type(value).__name__) == ("torch", "dtype")
    word = _PLAIN.get(str(value).removeprefix("torch.")) if is_dtype else value
    if isinstance(word, str) and word in words:
        return word
    raise ValueError(f"{where} is {str(value)!r:.60}, expected one of {', '.join(words)}{_hint(str(value), words)}")


def optional(where: str, value: Any) -> str | None:
    """Return a precision as `parse` does, and None for None: where nothing was asked for."""
    return None if value is None else parse(where, value)


def of_dtype(dtype: str) -> str:
    """Return the word for a dtype's name, such as "bf16" for "bfloat16" or "torch.bfloat16"; other text as it is."""
    return _PLAIN.get(dtype.removeprefix("torch."), dtype)


def in_words(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a stored recipe's keys and values, with the dtypes that earlier versions wrote as words of today."""
    return recipe | {key: of_dtype(recipe[key]) for key in _WERE_DTYPES & set(recipe) if isinstance(recipe[key], str)}


def refuse_other_names(keywords: dict[str, Any]) -> None:
    """Refuse the keywords by which transformers and earlier versions ask for a precision.

    Raises:
        TypeError: `dtype` or `torch_dtype`; what to write in its place is named.
    """
    for name in ("dtype", "torch_dtype"):
        if name in keywords:
            word = _meant(str(keywords[name]), WORDS) or "|".join(WORDS)
            raise TypeError(f'{name} is called precision here: say precision="{word}"')


def add_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Give a parser the option `--precision`, whose word is checked at once; None where it is not given.

    `--dtype`, its name in earlier versions, is refused with what to write in its place: a value in torch's spelling
    would be none of the words.

    Args:
        parser: the command's.
        default: what is taken without it, for the help.
    """
    words = f"of the weights: fp32, bf16, fp16 or another of open_clip's words; {default} if not given"
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
        word = _meant(str(values), WORDS) or "|".join(WORDS)
        parser.error(f"{option} is called --precision: say --precision {word}")


def _meant(text: str, words: Sequence[str]) -> str | None:
    """The word for another spelling of it; None where there is none."""
    plain = text.strip().lower().removeprefix("torch.")
    word = plain if plain in words else _ELSEWHERE.get(plain)
    return word if word in words else None


def _hint(text: str, words: Sequence[str]) -> str:
    if word := _meant(text, words):
        return f"; say {word}"
    near = difflib.get_close_matches(text.lower(), words, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
