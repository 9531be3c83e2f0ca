"""The one JSON reader, with one set of rules. Nothing else in the packages calls `json.load` or `json.loads`.

JSON must be UTF-8 (`plain_files`), keys are unique within an object, numbers are finite, text is Unicode, and every
failure is a ValueError. Untrusted files are bounded before they are parsed: in bytes, depth and number of values.
Annotations may have any size (`ANY_SIZE`); so may files that Python programs wrote, such as captions and records of
runs (`RECORDS`).
"""

import functools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vladva_clip.storage import plain_files

MAX_BYTES = 1 << 20
MAX_DEPTH = 32  # the deepest file of our families has 5
MAX_VALUES = 1 << 15  # enough for a weight file of 4,000 tensors; parsed, values take many times their bytes
MAX_INTEGER = (1 << 63) - 1


@dataclass(frozen=True)
class Limits:
    """A file's limits: bytes, values (which also limits depth), and the largest whole number; None means no limit.

    lenient: accept what Python's own writer produces outside the JSON standard: NaN, infinities, and halves of
    surrogate pairs, which Python uses for file names that are not UTF-8.
    """

    num_bytes: int | None = MAX_BYTES
    num_values: int | None = MAX_VALUES
    integer: int | None = MAX_INTEGER
    lenient: bool = False


USUAL = Limits()
ANY_SIZE = Limits(None, None, None)
RECORDS = Limits(None, None, None, lenient=True)

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# a string (whole, or to the end of the text) or a structural sign; possessive, so that it never backtracks
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


def read(path: Path, limits: Limits = USUAL) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: naming the file; it is not a regular file, not readable, or refused by `parse`.
    """
    try:
        return parse(plain_files.read_bytes(path, limits.num_bytes), limits)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} can't be read as JSON: {plain_files.said(error)}") from error


def parse(content: bytes | str, limits: Limits = USUAL) -> Any:
    """Parse JSON.

    Raises:
        ValueError: not JSON or not UTF-8, with the position; more bytes, depth or values than the limits allow, or than
            Python and the memory can hold; a duplicate key; a number that is not finite or, under the usual limits,
            beyond 64 bits; half a surrogate pair.
    """
    content = content.encode() if isinstance(content, str) else content
    if limits.num_bytes is not None and len(content) > limits.num_bytes:
        raise ValueError(f"more than {limits.num_bytes} bytes")
    if limits.num_values is not None:
        _check_structure(content, limits.num_values)
    try:
        return _parsed(content, limits)
    except RecursionError as error:  # Python's limit is far above ours, but the caller may already be deep in the stack
        raise ValueError("nested too deeply") from error
    except MemoryError as error:
        raise ValueError("more values than fit into memory") from error


def _parsed(content: bytes, limits: Limits) -> Any:
    if not content or content.isspace():
        raise ValueError("empty")
    data = json.loads(
        plain_files.decode(content),
        object_pairs_hook=_unique,
        parse_int=None if limits.integer is None else functools.partial(_integer, limits.integer),
        parse_float=None if limits.lenient else _finite,
        parse_constant=None if limits.lenient else _constant,
    )
    if not limits.lenient and _SURROGATE.search(content):  # half a character can't be written later
        json.dumps(data, ensure_ascii=False).encode()
    return data


def _check_structure(text: bytes, max_values: int) -> None:
    if len(text) > MAX_BYTES:  # a vocabulary: signs inside strings are counted as well, and depth is left to json
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
        raise ValueError(f"duplicate key {twice!r:.80} in one object")
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
    raise ValueError(f"{name} is not a JSON value")
