"""JSON from strangers: bounded in bytes, depth and number of values before it is parsed, and without ambiguity."""

import json
import math
import re
from typing import Any

MAX_BYTES = 1 << 20
MAX_DEPTH = 32  # the deepest of our families' files has 5
MAX_VALUES = 1 << 15  # a weight file of 4,000 tensors; parsed values take many times the bytes of their text
MAX_INTEGER = (1 << 63) - 1

# a string (whole, or to the end of the text) or a sign of structure; possessive, so that no text makes it backtrack
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


def parse(text: bytes) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        ValueError: not JSON; more bytes, depth or values than the limits above; a key twice in an object; a number that
            is not finite or beyond 64 bits.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    _check_structure(text)
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_constant,
        )
    except RecursionError as error:  # the limit is far above ours, but its caller may be deep down already
        raise ValueError("nested too deeply") from error


def _check_structure(text: bytes) -> None:
    depth = values = 0
    for match in _TOKENS.finditer(text):
        sign = match[0]
        depth += (sign in (b"[", b"{")) - (sign in (b"]", b"}"))
        values += sign in (b"[", b"{", b",")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r:.80} stands twice in one object")
    return data


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > MAX_INTEGER:
        raise ValueError(f"the whole number {digits:.30} has more than 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.30} is not finite")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
