"""One JSON object of a source -> its fields, or a bad record: the same rules for JSONL lines and members of tars."""

import json

from vladva_training.data.fields import decode_text
from vladva_training.data.records import BadRecord


def json_object(data: bytes, key: str) -> dict[str, object]:
    """Parse one object. NaN is taken as JSON's null is: Python writes it for what is missing.

    Args:
        data: UTF-8, with or without a byte order mark.
        key: the record's key.

    Raises:
        BadRecord: "not utf-8"; "not json" (also for another value than an object, a key that stands twice in one
            object, and what Python cannot hold).
    """
    text = decode_text(data, key)
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadRecord("not json", key, str(error) or type(error).__name__) from error
    if not isinstance(found, dict):
        raise BadRecord("not json", key, f"found {type(found).__name__}, expected an object")
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r:.80} stands twice in one object; expected each name once")
        found[name] = value
    return found
