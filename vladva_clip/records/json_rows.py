"""One JSON object -> its fields, or a bad record; the same rules for JSONL lines and members of tars."""

from vladva_clip.records.fields import decode_text
from vladva_clip.records.records import BadRecord
from vladva_clip.storage import json_files


def json_object(data: bytes, key: str) -> dict[str, object]:
    """Parse one object. NaN means missing, like null, because Python writes it for missing values.

    Args:
        data: UTF-8, with or without a byte order mark.
        key: the record's key.

    Raises:
        BadRecord: "not utf-8"; "not json" (also for a value that is not an object, a key that appears twice in one
            object, and values that Python can't represent).
    """
    text = decode_text(data, key)
    try:
        found = json_files.parse(text, json_files.RECORDS)
    except ValueError as error:
        raise BadRecord("not json", key, str(error)) from error
    if not isinstance(found, dict):
        raise BadRecord("not json", key, f"found {type(found).__name__}, expected an object")
    return found
