"""The fields of a row, as they are named in every kind of source."""

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from vladva_training.data.images import decode_image, read_image
from vladva_training.data.records import BadRecord, Record

IMAGE_FIELDS = ("image", "image_bytes", "image_path")
CAPTION_FIELDS = ("caption", "captions", "short_caption", "short_captions", "long_caption", "long_captions")
HARD_NEGATIVES = "hard_negatives"


def row_record(row: Mapping[str, object], key: str, folder: Path) -> Record:
    """Make a record of a row with an image, its bytes or its path.

    Args:
        row: fields of `IMAGE_FIELDS`, `CAPTION_FIELDS` and `HARD_NEGATIVES`; others are ignored.
        key: the record's key.
        folder: where relative image paths start.

    Raises:
        BadRecord: no image, or an image or a caption that cannot be read.
    """
    captions = row_captions(row, key)
    return Record(key, row_image(row, key, folder), captions, texts(row, (HARD_NEGATIVES,), key))


def row_captions(row: Mapping[str, object], key: str) -> tuple[str, ...]:
    """Return every caption of a row, in the order of `CAPTION_FIELDS`; one that is there twice counts once.

    A row without any is whole: `vladva-train caption` writes what is missing, and training counts it as a bad record.

    Raises:
        BadRecord: a caption that is no text.
    """
    return texts(row, CAPTION_FIELDS, key)


def row_image(row: Mapping[str, object], key: str, folder: Path) -> Image.Image:
    """Return the decoded image of a row: `image` (bytes, path, PIL image or Hugging Face's {bytes, path}),
    `image_bytes` (bytes, or base64 where the format holds text only) or `image_path`.

    Raises:
        BadRecord: "missing image", "corrupt image", "image format", "image too large".
    """
    for name in IMAGE_FIELDS:
        image = row.get(name)
        if isinstance(image, Mapping):
            image = image.get("bytes") or image.get("path")
        if name == "image_bytes" and isinstance(image, str):
            image = _from_base64(image, key)
        if isinstance(image, bytes | bytearray | Image.Image) and image:
            return decode_image(image, key)
        if isinstance(image, str) and image:
            return read_image(folder / image, key)
    raise BadRecord("missing image", key, f"fields {', '.join(row) or 'none'}")


def texts(row: Mapping[str, object], names: Iterable[str], key: str) -> tuple[str, ...]:
    """Return the strings and lists of strings of some fields, without repetitions; absent ones are passed over.

    Raises:
        BadRecord: "wrong type" for what is no text, "not utf-8" for text that was no UTF-8.
    """
    found = []
    for name in names:
        value = row.get(name)
        if is_absent(value):
            continue
        values = list(value) if isinstance(value, list | tuple) else [value]
        found += [_text(item, name, key) for item in values if not is_absent(item)]
    return tuple(dict.fromkeys(found))


def is_absent(value: object) -> bool:
    """Whether a field holds nothing: null, or the not-a-number that tables put in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def decode_text(data: bytes, key: str) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Raises:
        BadRecord: "not utf-8".
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRecord("not utf-8", key, str(error)) from error


def _text(value: object, name: str, key: str) -> str:
    if isinstance(value, bytes):
        return decode_text(value, key)
    if not isinstance(value, str):
        raise BadRecord("wrong type", key, f"{name} holds {type(value).__name__} {value!r:.40}, expected text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):  # JSON can spell half a letter: "\\ud83d"
        raise BadRecord("not utf-8", key, f"{name} holds half of a surrogate pair")
    return value


def _from_base64(text: str, key: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRecord("corrupt image", key, f"image_bytes is no base64: {error}") from error
