"""JSON from strangers: bounded in bytes, depth and number of values before it is parsed, and without ambiguity."""

import functools
import json
import math
import re
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1 << 20
MAX_DEPTH = 32  # the deepest of our families' files has 5
MAX_VALUES = 1 << 15  # a weight file of 4,000 tensors; parsed values take many times the bytes of their text
MAX_INTEGER = (1 << 63) - 1


@dataclass(frozen=True)
class Limits:
    """What a file may hold at most: bytes, values, and the largest whole number (None where each is checked later)."""

    num_bytes: int = MAX_BYTES
    num_values: int = MAX_VALUES
    integer: int | None = MAX_INTEGER


USUAL = Limits()

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# a string (whole, or to the end of the text) or a sign of structure; possessive, so that no text makes it backtrack
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


def parse(text: bytes, limits: Limits = USUAL) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        ValueError: not JSON; more bytes, depth or values than the limits; a key twice in an object; a number that is
            not finite or, by the usual limits, beyond 64 bits.
    """
    if len(text) > limits.num_bytes:
        raise ValueError(f"more than {limits.num_bytes} bytes")
    _check_structure(text, limits.num_values)
    try:
        data = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=None if limits.integer is None else functools.partial(_integer, limits.integer),
            parse_float=_finite,
            parse_constant=_constant,
        )
        if _SURROGATE.search(text):  # half a sign is no text: whatever writes it later would fail
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except RecursionError as error:  # the limit is far above ours, but its caller may be deep down already
        raise ValueError("nested too deeply") from error


def _check_structure(text: bytes, max_values: int) -> None:
    if len(text) > MAX_BYTES:  # a vocabulary: the signs within its strings are counted too, and depth is left to json
        if sum(map(text.count, (b",", b"[", b"{"))) > max_values:
            raise ValueError(f"more than {max_values} values")
        return
    depth = values = 0
    for match in _TOKENS.finditer(text):
        sign = match[0]
        depth += (sign in (b"[", b"{")) - (sign in (b"]", b"}"))
        values += sign in (b"[", b"{", b",")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if values > max_values:
            raise ValueError(f"more than {max_values} values")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r:.80} stands twice in one object")
    return data


def _integer(largest: int, digits: str) -> int:
    if len(digits) > 40 or abs(int(digits)) > largest:
        raise ValueError(f"the whole number {digits:.30} has more than {largest.bit_length() + 1} bits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.30} is not finite")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
