"""Hand-made attacks by the older files of tokenizers, where there is no tokenizer.json."""

import io
import json
import random
from collections.abc import Callable
from typing import Any

from tests.support.strangers.cases import Attack, Case

PIECES, VOCABULARY, MERGES = "base/tokenizer.model", "base/vocab.json", "base/merges.txt"


def attacks() -> list[Attack]:
    """All of them."""
    return [*_pieces(), *_merges(), Attack("no tokenizer at all", "base", _alone({}), "refused")]


def _alone(files: dict[str, Any]) -> Callable[[Case], None]:
    """A base whose tokenizer these files are; a function in place of a content is called with the case."""

    def apply(case: Case) -> None:
        (case.root / "base/tokenizer.json").unlink()
        for name, content in files.items():
            case.put(name, content(case) if callable(content) else content)

    return apply


def _trained(case: Case) -> bytes:
    """A small SentencePiece model; empty without the library, which only the tests' own dependencies bring."""
    try:
        import sentencepiece
    except ImportError:
        return b""
    words = ["a red green blue circle square left right of above below the on small large dog cat"] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_writer=model, vocab_size=60, model_type="bpe", minloglevel=9
    )
    return model.getvalue()


def _flipped(seed: int) -> Callable[[Case], bytes]:
    def damage(case: Case) -> bytes:
        rng, data = random.Random(seed), bytearray(_trained(case) or b"x" * 100)
        for _ in range(rng.randint(1, 40)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)

    return damage


def _pieces() -> list[Attack]:
    contents: dict[str, Any] = {
        "is empty": b"",
        "is text": "tokens",
        "is a small one": _trained,
        "is half a small one": lambda case: _trained(case)[:700],
        "is large": lambda case: b"\n\x05\n\x03abc" * 9_000_000,
        "is long": lambda case: b"\n\xff\xff\xff\xff\x0f" + b"a" * 1000,
        "is a pickle": lambda case: case.trap(),
    }
    contents |= {f"is damaged, {seed}": _flipped(seed) for seed in range(12)}
    return [Attack(f"SentencePiece alone: {name}", "base", _alone({PIECES: it})) for name, it in contents.items()]


def _merges() -> list[Attack]:
    def words(case: Case) -> dict[str, int]:
        return json.loads((case.honest / "base/tokenizer.json").read_text())["model"]["vocab"]

    def merges(case: Case) -> str:
        pairs = json.loads((case.honest / "base/tokenizer.json").read_text())["model"]["merges"]
        return "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in pairs)

    vocabularies: dict[str, Any] = {
        "as they should be": words,
        "far ids": lambda case: {word: 10**9 + number for word, number in words(case).items()},
        "negative ids": lambda case: dict.fromkeys(words(case), -1),
        "ids that are texts": lambda case: dict.fromkeys(words(case), "1"),
        "deep": "[" * 100_000,
        "large": lambda case: json.dumps({f"w{number}": number for number in range(1_000_000)}),
        "a list": [],
        "no text": b"\xff" * 100,
    }
    made = [(f"words: {name}", it, merges) for name, it in vocabularies.items()]
    lines = {"nothing": "", "one word": "a\nb\n", "no words": "qq zz\n" * 1000, "no text": b"\xff\n" * 1000}
    lines |= {"long": "a" * 900_000 + " b\n", "many": "a b\n" * 1_000_000, "blanks": " \n" * 9999}
    made += [(f"merges: {name}", words, it) for name, it in lines.items()]
    return [Attack(f"older files, {name}", "base", _alone({VOCABULARY: one, MERGES: two})) for name, one, two in made]
