"""Which of a base's tokenizer files are read, and what they may hold: strangers wrote them.

tokenizer.json has the format of the library `tokenizers`. Its processing steps are admitted only if they neither grow a
text nor search it with a pattern of the file's own choice.
"""

import codecs
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.encoder.backbones.config_fields import MAX_VOCABULARY
from vladva_clip.interface import extras
from vladva_clip.storage import json_files
from vladva_clip.storage.base import BaseFiles
from vladva_clip.storage.fields import FLAG, Check, Fields, admit, either, is_number, list_of, one_of, text, whole
from vladva_clip.storage.json_files import Limits

TOKENIZER, SENTENCEPIECE, VOCABULARY, MERGES = "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"
SETTINGS, SPECIALS, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
MAX_FILE, MAX_SENTENCEPIECE = 1 << 24, 1 << 20  # bytes; Llama's own SentencePiece model takes half a MB
MAX_TOKENIZER = 1 << 26  # bytes; Gemma's 262,144 words with their merges take about 32 MB, Llama 3's 17
MAX_POST_PROCESSOR = 1 << 14  # bytes, as JSON
MAX_ADDED = 1 << 9  # tokens in addition to the vocabulary
MAX_PIECES, MAX_WORD = 1 << 16, 1 << 10  # pieces of a SentencePiece model; characters in a word
# Gemma's words and merges, as pairs, are about 2 million values; some settings use 10^30 for "no limit"
LIMITS = Limits(num_bytes=MAX_TOKENIZER, num_values=1 << 22, integer=None)
SETTINGS_LIMITS = Limits(integer=1 << 127)
GENERAL_CLASSES = ("PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend")
# from the published tokenizers of LLaVA, Qwen2-VL and their relatives: any other pattern might never finish
_LETTERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = (
    _LETTERS % "",
    _LETTERS % "{1,3}",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
)
_STEPS = {
    "normalizer": (
        "Sequence",
        "Prepend",
        "Replace",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Strip",
        "StripAccents",
        "Lowercase",
    ),
    "pre_tokenizer": ("Sequence", "ByteLevel", "Split", "Metaspace", "Digits", "Whitespace", "WhitespaceSplit"),
    "post_processor": ("Sequence", "ByteLevel", "TemplateProcessing", "RobertaProcessing", "BertProcessing"),
    "decoder": ("Sequence", "ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"),
}
_MAX_STEPS, _LONGEST_PIECE = 32, 64  # characters; Llama's longest piece has 16
_PREFIX = 4  # characters that a step may put before a text
_ID = whole(0, MAX_VOCABULARY)
_TOKEN_OBJECT: Fields = {
    "content": text(),
    "__type": one_of("AddedToken"),
    **{name: FLAG for name in ("lstrip", "rstrip", "normalized", "single_word", "special")},
}
_TOKEN = Check("a token or its object", lambda value: text().holds(value) or _is_token_object(value))
_TOKENS = either(list_of(_TOKEN, MAX_ADDED), Check("an object of tokens", lambda value: _are_tokens(value)))
_SPECIAL: Fields = {
    **{f"{name}_token": _TOKEN.or_null() for name in ("bos", "eos", "unk", "pad", "image", "video")},
    "additional_special_tokens": _TOKENS.or_null(),
    "extra_special_tokens": _TOKENS.or_null(),
}
# where transformers 5 writes tokens that have names of their own; it reads them as keys of the file, too
_NAMED, _NAME = "model_specific_special_tokens", re.compile(r"(?:[a-z]+_)?(?:image|video)_token")
_DECODER = Check(
    "an object of ids and their tokens' objects",
    lambda value: (
        isinstance(value, dict)
        and len(value) <= MAX_ADDED
        and all(key.isdecimal() and len(key) < 8 and _is_token_object(item) for key, item in value.items())
    ),
)
_SIDE = one_of("left", "right")


def settings(base: BaseFiles, families: Sequence[type[Backbone]]) -> dict[str, Any]:
    """Return the admitted keys of tokenizer_config.json; empty without the file.

    Args:
        base: the directory with the tokenizer.
        families: their tokenizer classes are admitted.

    Raises:
        ValueError: a class that is neither transformers' general tokenizer nor one of these families', code that the
            file brings along, or values of the wrong kind.
    """
    classes = (*GENERAL_CLASSES, *(name for family in families for name in family.tokenizer_classes))
    fields: Fields = {
        **_SPECIAL,
        "tokenizer_class": one_of(*classes).or_null(),
        "processor_class": either(*(family.processor_fields["processor_class"] for family in families)).or_null(),
        "added_tokens_decoder": _DECODER,
        "model_max_length": Check("a number", is_number).or_null(),
        "backend": one_of("tokenizers"),
        "padding_side": _SIDE,
        "truncation_side": _SIDE,
        _NAMED: Check("an object of tokens", lambda value: _are_tokens(value)).or_null(),
        "errors": one_of("replace", "strict", "ignore"),
        **{f"add_{name}": FLAG.or_null() for name in ("bos_token", "eos_token", "prefix_space")},
        **{name: FLAG.or_null() for name in ("legacy", "clean_up_tokenization_spaces", "use_default_system_prompt")},
    }
    admitted = _admit_file(base, SETTINGS, fields, ("special_tokens_map_file", "tokenizer_file"))
    name = admitted.get("tokenizer_class")
    if name not in (None, *GENERAL_CLASSES):  # for older names transformers searches other families' modules
        admitted["tokenizer_class"] = name.removesuffix("Fast")
    named = admitted.pop(_NAMED, None) or {}
    return {**{key: token for key, token in named.items() if _NAME.fullmatch(key)}, **admitted}


def specials(base: BaseFiles) -> dict[str, Any]:
    """Return the admitted keys of special_tokens_map.json; empty without the file. Raises ValueError."""
    return _admit_file(base, SPECIALS, _SPECIAL)


def added(base: BaseFiles) -> dict[str, int]:
    """Return the content of added_tokens.json, ids by token; empty without the file.

    Raises:
        ValueError: not an object of ids, or too many tokens.
    """
    path = base.path(ADDED)
    data = base.json(ADDED) if base.has(ADDED) else {}
    if len(data) > MAX_ADDED or not all(_ID.holds(value) for value in data.values()):
        raise ValueError(f"{path} holds {str(data)[:80]}, expected at most {MAX_ADDED} tokens with their ids")
    return data


def vocabulary(base: BaseFiles) -> bytes:
    """Return tokenizer.json, checked and without its settings for truncation and padding, which we choose ourselves.

    Raises:
        ValueError: not a byte-pair encoding of the library `tokenizers`, ids beyond any vocabulary, or steps that grow
            a text or search it with an unknown pattern.
    """
    path = base.path(TOKENIZER)
    content = base.content(TOKENIZER, LIMITS.num_bytes)
    data = _parsed(content, path)
    model, tokens = data.get("model"), data.get("added_tokens", [])
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"{path}: the model is {str(model)[:80]}, expected a byte-pair encoding with its vocabulary")
    if unknown := sorted(set(data) - {"version", "truncation", "padding", "added_tokens", "model", *_STEPS}):
        raise ValueError(f"{path} has the unknown key {unknown[0]!r:.80}")
    if not all(len(word) <= MAX_WORD and _ID.holds(value) for word, value in model["vocab"].items()):
        raise ValueError(
            f"{path}: the vocabulary has words of more than {MAX_WORD} characters, or ids that are not whole numbers "
            f"from 0 to {MAX_VOCABULARY}"
        )
    if model.get("dropout") not in (None, 0):
        raise ValueError(f"{path}: dropout is {model['dropout']!r:.40}, which would give equal texts different ids")
    if not isinstance(tokens, list) or len(tokens) > MAX_ADDED or not all(map(_is_added, tokens)):
        raise ValueError(f"{path}: added_tokens is {str(tokens)[:80]}, expected a list of at most {MAX_ADDED} tokens")
    _check_frame(data.get("post_processor"), f"{path}: post_processor")
    for name, kinds in _STEPS.items():
        _check_steps(data.get(name), kinds, f"{path}: {name}")
    if data.get("truncation") is None and data.get("padding") is None:
        return content.removeprefix(codecs.BOM_UTF8)  # `tokenizers` can't read it
    return json.dumps({**data, "truncation": None, "padding": None}).encode()


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json_files.parse(content, LIMITS)
    except ValueError as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, expected an object")
    return data


def check_sentencepiece(content: bytes, path: Path) -> None:
    """Check a SentencePiece model; transformers turns its pieces into merges, in time quadratic in their number.

    Args:
        content: the file's bytes.
        path: the file, for errors.

    Raises:
        ValueError: not a SentencePiece model, or more or longer pieces than a language model has; `sentencepiece` is
            not installed.
    """
    extras.require("sentencepiece", purpose=str(path))
    from sentencepiece import SentencePieceProcessor

    try:
        pieces = SentencePieceProcessor(model_proto=content)
        count = pieces.get_piece_size()
        longest = max((len(pieces.id_to_piece(number)) for number in range(min(count, MAX_PIECES))), default=0)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a SentencePiece model ({error!s:.200}); get the file again") from error
    if count > MAX_PIECES or longest > _LONGEST_PIECE:
        raise ValueError(
            f"{path} has {count} pieces of up to {longest} characters, expected {MAX_PIECES} and {_LONGEST_PIECE} at "
            "most"
        )


def _check_frame(step: Any, where: str) -> None:
    """Check the frame around a text: it must contain the text once, and only a few special tokens.

    The library `tokenizers` repeats the text as often as the frame does, even when no special tokens are requested.
    """
    frames = [item for item in _flat(step) if isinstance(item, dict) and item.get("type") == "TemplateProcessing"]
    if len(json.dumps(step)) > MAX_POST_PROCESSOR or len(frames) > 1 or len(_flat(step)) > 4:
        raise ValueError(f"{where} has more than {MAX_POST_PROCESSOR} bytes, 4 steps or one frame of special tokens")
    for frame in frames:
        single = frame.get("single")
        if not isinstance(single, list) or len(single) > 8 or _texts(single) != ["A"]:
            raise ValueError(f"{where}: single is {str(single)[:120]}, expected the text A once among 8 pieces at most")


def _texts(pieces: list[Any]) -> list[Any]:
    found = [piece.get("Sequence") for piece in pieces if isinstance(piece, dict)]
    return [sequence.get("id") for sequence in found if isinstance(sequence, dict)]


def _check_steps(step: Any, kinds: tuple[str, ...], where: str) -> None:
    """Check a step on the way from text to ids or back, and the steps nested in it."""
    steps = list(_flat(step))
    if len(steps) > _MAX_STEPS:
        raise ValueError(f"{where} has {len(steps)} steps, {_MAX_STEPS} at most are read")
    for item in steps:
        if not isinstance(item, dict) or item.get("type") not in kinds:
            found = item.get("type") if isinstance(item, dict) else item
            raise ValueError(f"{where} has the step {found!r:.80}, expected one of {', '.join(kinds)}")
        if fault := _growth(item):
            raise ValueError(f"{where}: {fault}")


def _growth(step: dict[str, Any]) -> str | None:
    """Return how a step could grow a text or search it without end; None if it can't."""
    pattern = step.get("pattern", {"String": " "})
    string, regex = (pattern.get(kind) for kind in ("String", "Regex")) if isinstance(pattern, dict) else (None, None)
    if not (isinstance(string, str) and string) and not (step["type"] == "Split" and regex in _PATTERNS):
        return f"the pattern {pattern!r:.120} is unknown, expected a text or one of the published tokenizers' patterns"
    for key, most in (("content", len(string or "")), ("prepend", _PREFIX), ("replacement", 1)):
        if step["type"] != "Strip" and len(str(step.get(key, ""))) > most:
            return f"{key} is {step[key]!r:.80}, expected {most} characters at most"
    return None


def _flat(step: Any) -> list[Any]:
    if step is None:
        return []
    inner = [part for key in ("normalizers", "pretokenizers", "processors", "decoders") for part in _list(step, key)]
    return [step, *(item for part in inner for item in _flat(part))]


def _list(step: Any, key: str) -> list[Any]:
    value = step.get(key, []) if isinstance(step, dict) else []
    return value if isinstance(value, list) else [value]


def _admit_file(base: BaseFiles, name: str, fields: Fields, ignored: tuple[str, ...] = ()) -> dict[str, Any]:
    """Admit a file's keys; `ignored` are local paths that transformers 4 recorded."""
    data = base.json(name, SETTINGS_LIMITS) if base.has(name) else {}
    return admit({key: value for key, value in data.items() if key not in ignored}, fields, f"{base.path(name)}: ")


def _is_token_object(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "content" in value
        and all(key in _TOKEN_OBJECT and _TOKEN_OBJECT[key].holds(item) for key, item in value.items())
    )


def _is_added(value: Any) -> bool:
    return isinstance(value, dict) and _ID.holds(value.get("id")) and _is_token_object(_without(value, "id"))


def _without(value: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name != key}


def _are_tokens(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= MAX_ADDED and all(map(_TOKEN.holds, value.values()))
