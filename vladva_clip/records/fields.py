"""The fields of a row, named the same in every kind of source, and which values count as missing."""

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from vladva_clip.records.images import decode_image, read_image
from vladva_clip.records.records import BadRecord, Record
from vladva_clip.storage import json_files, plain_files

IMAGE_FIELDS = ("image", "image_bytes", "image_path")
CAPTION_FIELDS = ("caption", "captions", "short_caption", "short_captions", "long_caption", "long_captions")
CONVERSATIONS = "conversations"
"""A question and its answer, as LLaVA's data sets store a long caption; read where no field of `CAPTION_FIELDS` is."""
HARD_NEGATIVES = "hard_negatives"
FIELDS = (*IMAGE_FIELDS, *CAPTION_FIELDS, HARD_NEGATIVES)

MISSING_WORDS = frozenset(
    {
        *("#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "nan"),
        *("none", "null"),  # up to here, what pandas reads as missing in a CSV
        *("nat", "nil", "undefined", "\\n"),  # missing dates; Lua, Ruby and Go; JavaScript; NULL in database dumps
        *("#div/0!", "#name?", "#null!", "#num!", "#ref!", "#value!"),  # spreadsheets
    }
)
"""What programs write for a missing value, in lower case. A text that equals one of them counts as missing."""

_OPENING = re.compile(r"""[\[({]\s*+([bu]?['"]|None\b|nan\b)""")
_ENDS = ("'", '"', "None", "nan")
_CUT = re.compile(r"""\[\s*+("[^"]*+"|'[^']*+')\s*+,""")  # the start of a list that a program truncated


def row_record(row: Mapping[str, object], key: str, folder: Path) -> Record:
    """Make a record from a row with an image, its bytes or its path.

    Args:
        row: fields of `IMAGE_FIELDS`, `CAPTION_FIELDS` (or `CONVERSATIONS`) and `HARD_NEGATIVES`; others are ignored.
        key: the record's key.
        folder: where relative image paths start.

    Raises:
        BadRecord: no image, or an image or a caption that cannot be read.
    """
    captions = row_captions(row, key)
    return Record(key, row_image(row, key, folder), captions, texts(row, (HARD_NEGATIVES,), key))


def row_captions(row: Mapping[str, object], key: str) -> tuple[str, ...]:
    """Return every caption of a row once, in the order of `CAPTION_FIELDS`; without any of these, its conversation's.

    A row without captions is valid here: `vladva-train caption` adds them, and training counts it as a bad record.

    Raises:
        BadRecord: a caption that is not text, a conversation that is not one question and one answer.
    """
    if CONVERSATIONS in row and not any(name in row for name in CAPTION_FIELDS):
        return texts({CONVERSATIONS: _answer(row[CONVERSATIONS], key)}, (CONVERSATIONS,), key)
    return texts(row, CAPTION_FIELDS, key)


def row_image(row: Mapping[str, object], key: str, folder: Path) -> Image.Image:
    """Return the decoded image of a row: `image` (bytes, path, PIL image or Hugging Face's {bytes, path}),
    `image_bytes` (bytes, or base64 in text formats) or `image_path`.

    Raises:
        BadRecord: "missing image", "corrupt image", "image format", "image too large".
    """
    for name in IMAGE_FIELDS:
        image = row.get(name)
        if isinstance(image, Mapping):
            image = image.get("bytes") or image.get("path")
        if is_absent(image):
            continue
        if name == "image_bytes" and isinstance(image, str):
            image = _from_base64(image, key)
        if isinstance(image, bytes | bytearray | Image.Image) and image:
            return decode_image(image, key)
        if isinstance(image, str) and image:
            return read_image(folder / image, key)
    raise BadRecord("missing image", key, f"fields {', '.join(row) or 'none'}")


def texts(row: Mapping[str, object], names: Iterable[str], key: str) -> tuple[str, ...]:
    """Return the strings and lists of strings of some fields, without repetitions; absent ones are skipped.

    A text that is a JSON list counts as that list, since a CSV can't store lists in any other way.

    Raises:
        BadRecord: "wrong type" for values that are not text, numbers as text, lists or dicts as Python prints them, and
            truncated lists; "not utf-8" for text that was not UTF-8.
    """
    found = []
    for name in names:
        value = row.get(name)
        values = value if isinstance(value, list | tuple) else [value]
        items = [item for value in values for item in _items(value, key)]
        found += [_text(item, name, key) for item in items if not is_absent(item)]
    return tuple(dict.fromkeys(found))


def is_absent(value: object) -> bool:
    """Whether a field is empty: null, NaN (which tables use for null), or a word for either."""
    if isinstance(value, str):
        return value.strip().casefold() in MISSING_WORDS
    return value is None or (isinstance(value, float) and math.isnan(value))


def decode_text(data: bytes, key: str) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Raises:
        BadRecord: "not utf-8".
    """
    try:
        return plain_files.decode(data)
    except ValueError as error:
        raise BadRecord("not utf-8", key, str(error)) from error


def _answer(conversation: object, key: str) -> object:
    """The answer in a conversation such as `[{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]`.

    The answers of a longer conversation are replies to its questions, not captions.
    """
    if is_absent(conversation):
        return None
    turns = _items(conversation, key) if isinstance(conversation, str | bytes) else conversation
    turns = turns if isinstance(turns, list | tuple) else [turns]
    speakers = [turn.get("from") if isinstance(turn, Mapping) else type(turn).__name__ for turn in turns]
    if speakers not in ([], ["human", "gpt"]):
        found = f"{len(turns)} turns, of {', '.join(map(str, speakers[:4]))}"
        raise BadRecord("wrong type", key, f"{CONVERSATIONS} holds {found}; expected one of human and one of gpt")
    return turns[1].get("value") if turns else None


def _items(value: object, key: str) -> list[object]:
    """The values in one value: the items of a JSON list, or the value itself, parsed if it is JSON."""
    if isinstance(value, bytes):
        value = decode_text(value, key)
    text = value.strip() if isinstance(value, str) else ""
    if not (text.startswith(("[", "{")) and text.endswith(("]", "}"))):
        return [value]
    try:
        found = json_files.parse(text, json_files.RECORDS)
    except ValueError:  # such as "[sic]"; a list as Python prints it is refused later
        return [value]
    return found if isinstance(found, list) else [found]


def _text(value: object, name: str, key: str) -> str:
    if not isinstance(value, str):
        raise BadRecord("wrong type", key, f"{name} holds {type(value).__name__} {value!r:.40}, expected text")
    if _is_number(value):
        raise BadRecord("wrong type", key, f"{name} holds the number {value.strip():.40}, expected a caption")
    if _is_printed(value.strip()):
        what = f"a list or object as a program printed or truncated it ({value!r:.60}), expected text or a JSON list"
        raise BadRecord("wrong type", key, f"{name} holds {what}")
    if "\0" in value:
        raise BadRecord("not utf-8", key, f"{name} holds NUL, which UTF-16 read as UTF-8 has: save it as UTF-8")
    if any("\ud800" <= letter <= "\udfff" for letter in value):  # JSON can escape half a character: "\\ud83d"
        raise BadRecord("not utf-8", key, f"{name} holds bytes that are not UTF-8, or half of a surrogate pair")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_printed(text: str) -> bool:
    """Whether it is a list, tuple, dict or bytes as Python prints them, or a truncated list."""
    if text in ("()", "set()") or _CUT.match(text):
        return True
    if text.startswith(("b'", 'b"')):
        return len(text) > 2 and text.endswith(text[1])
    return bool(_OPENING.match(text)) and text[-1] in "])}" and text[:-1].rstrip(" ,\n").endswith(_ENDS)


def _from_base64(text: str, key: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRecord("corrupt image", key, f"image_bytes is not base64: {error}") from error
