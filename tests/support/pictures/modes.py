"""One picture of every row of the table in docs/api.md ("Images"), under the names that the table has."""

import io
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"
SIZE = (24, 16)

_gray = np.linspace(0, 255, SIZE[0] * SIZE[1]).round().astype(np.uint8).reshape(SIZE[::-1])
_rgb = Image.merge("RGB", [Image.fromarray(channel) for channel in (_gray, _gray[::-1].copy(), _gray[:, ::-1].copy())])
_alpha = Image.fromarray(np.ascontiguousarray(_gray.reshape(SIZE).T))


def table(heading: str) -> dict[str, tuple[str, ...]]:
    """Name in backticks -> the further cells of its row, in the table of docs/api.md whose first heading this is."""
    lines = DOCUMENT.read_text(encoding="utf-8").split(f"\n| {heading}", 1)[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: tuple(cells) for names, *cells in rows for name in re.findall(r"`([^`]+)`", names)}


def with_key(image: Image.Image, key: object) -> Image.Image:
    image.info["transparency"] = key
    return image


def read_back(image: Image.Image, form: str) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return Image.open(io.BytesIO(buffer.getvalue()))


def lab() -> Image.Image:
    return Image.merge("LAB", [_rgb.getchannel(0), *[Image.new("L", SIZE, 128)] * 2])


def adobe_jpeg() -> Image.Image:
    """As Photoshop writes CMYK: inverted, which Pillow undoes."""
    image = read_back(_rgb.convert("CMYK"), "JPEG")
    assert image.mode == "CMYK" and "adobe" in image.info
    return image


def with_alpha(mode: str) -> Image.Image:
    image = _rgb.quantize(16).convert("PA") if mode == "PA" else _rgb.convert(mode)
    image.putalpha(_alpha)
    return image


def palette_with_alpha() -> Image.Image:
    image = _rgb.quantize(16)
    colors = np.array(image.getpalette()).reshape(-1, 3)[:16]
    image.putpalette(np.c_[colors, np.arange(16) * 17].astype(np.uint8).tobytes(), "RGBA")
    return image


def deep(mode: str) -> Image.Image:
    order = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}[mode]
    return Image.frombytes(mode, SIZE, (_gray.astype(np.uint16) * 257).astype(order).tobytes())


def deep_tiff(white_is_zero: bool = False, bits: int = 16) -> Image.Image:
    """A TIFF that Pillow reads and doesn't write: one of I;16, with other tags."""
    values = _gray.astype(np.uint16) * (257 if bits == 16 else 16)
    if bits == 12:  # two samples in three bytes
        pairs = values.reshape(SIZE[1], -1, 2)
        first, second = pairs[..., 0], pairs[..., 1]
        values = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
        values = values.reshape(SIZE[1], -1).view(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    data = buffer.getvalue()
    changes = ((256, 4, values.shape[1], SIZE[0]), (258, 3, 16, bits), (262, 3, 1, int(not white_is_zero)))
    for tag, kind, before, after in changes:
        entry = struct.pack("<HHI", tag, kind, 1)
        assert entry + struct.pack("<I", before) in data
        data = data.replace(entry + struct.pack("<I", before), entry + struct.pack("<I", after))
    return Image.open(io.BytesIO(data))


def integers(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.int32))


def of(name: str) -> Image.Image:
    """The picture of a name; KeyError for a name that isn't one."""
    return PICTURES[name]()


PICTURES = {
    **{mode: lambda mode=mode: _rgb.convert(mode) for mode in ("1", "L", "P", "RGBX", "CMYK", "YCbCr", "HSV")},
    "RGB": _rgb.copy,
    "CMYK of Adobe's JPEG": adobe_jpeg,
    "LAB": lab,
    "LAB of a TIFF": lambda: read_back(lab(), "TIFF"),
    **{mode: lambda mode=mode: with_alpha(mode) for mode in ("LA", "PA", "RGBA")},
    "La": lambda: with_alpha("LA").convert("La"),
    "RGBa": lambda: with_alpha("RGBA").convert("RGBa"),
    "1 with key": lambda: with_key(_rgb.convert("1"), 0),
    "L with key": lambda: with_key(_rgb.convert("L"), 109),
    "RGB with key": lambda: with_key(_rgb.copy(), _rgb.getpixel((3, 5))),
    "P with an index as key": lambda: with_key(_rgb.quantize(16), 5),
    "P with bytes as key": lambda: with_key(_rgb.quantize(16), bytes(range(0, 256, 16))),
    "P with RGBA palette": palette_with_alpha,
    **{mode: lambda mode=mode: deep(mode) for mode in ("I;16", "I;16L", "I;16B", "I;16N")},
    "I;16 with key": lambda: with_key(deep("I;16"), 0),
    "I;16 of a TIFF with 12 bits": lambda: deep_tiff(bits=12),
    "I;16 of a TIFF with white as 0": lambda: deep_tiff(white_is_zero=True),
    "I to 255": lambda: integers(_gray),
    "I to 65535": lambda: integers(_gray.astype(np.int32) * 257),
    "I beyond": lambda: integers(_gray.astype(np.int32) * 257 + 1),
    "F": lambda: Image.fromarray((_gray / 255).astype(np.float32)),
    "F with NaN": lambda: Image.fromarray(np.full(SIZE[::-1], np.nan, np.float32)),
}
