"""The table in docs/api.md: what becomes of each PIL mode, array and tensor, and what transformers makes of it."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import image_transforms

from tests.support.pictures import modes
from vladva_clip.pictures.colors import ModeError, to_rgb

TABLE = modes.table("picture, by PIL's mode")
ARRAYS = modes.table("array")


def on_white(image: Image.Image) -> np.ndarray:
    """The floats of what a picture shows on white paper, from its straight (not premultiplied) colors."""
    pixels = np.asarray((image.convert("LA") if image.mode == "La" else image).convert("RGBA")).astype(float)
    alpha = pixels[..., 3:] / 255
    return alpha * pixels[..., :3] + (1 - alpha) * 255


def scaled(image: Image.Image, rule: str) -> np.ndarray:
    values = np.asarray(image)
    gray = np.floor(values * (255 / (4095 if "4095" in rule else 65535)) + 1e-9).astype(int)
    gray = 255 - gray if "inverted" in rule else gray
    if "transparency" in image.info:
        gray[values == image.info["transparency"]] = 255
    return np.stack([gray] * 3, axis=-1)


def composites() -> bool:
    """Releases of transformers before 5.6 or so drop transparency."""
    return image_transforms.convert_to_rgb(Image.new("LA", (1, 1))).getpixel((0, 0)) == (255, 255, 255)


def test_the_table_names_every_picture_and_no_other():
    assert set(TABLE) == set(modes.PICTURES)
    assert {modes.of(name).mode for name in TABLE} >= set(Image.MODES)  # all of Pillow's


@pytest.mark.parametrize("name", TABLE)
def test_what_becomes_of_it(name):
    image, rule = modes.of(name), TABLE[name][0]
    if rule.startswith("refused"):
        with pytest.raises(ModeError, match=r"floats \(mode F\)|expected 0 to 65535"):
            to_rgb(image)
        return
    found = to_rgb(image)
    assert (found.mode, found.size) == ("RGB", image.size) and "transparency" not in found.info
    if rule.startswith("converted"):
        assert np.array_equal(found, image.convert("RGB"))
    elif rule == "composited on white":
        assert np.abs(np.asarray(found) - on_white(image)).max() <= 1
        assert np.abs(np.asarray(found) - on_white(image)).mean() < 0.4
    else:
        assert rule.startswith("scaled") and np.array_equal(found, scaled(image, rule))
    assert len(np.unique(np.asarray(found))) > 1 or name == "1 with key"  # white on white


@pytest.mark.parametrize("name", TABLE)
def test_what_the_export_does(name):
    """The processors of both families convert PIL images by this function."""
    if not composites():
        pytest.skip("this transformers drops transparency")
    image, (_, rule) = modes.of(name), TABLE[name]
    convert = functools.partial(image_transforms.convert_to_rgb, return_numpy=True)
    if rule == "refused":
        with pytest.raises(ValueError):
            convert(image)
    elif rule == "equal":
        assert np.array_equal(convert(image), to_rgb(image))
    elif rule.startswith("takes a spare byte"):
        assert not np.array_equal(convert(image), to_rgb(image))
    elif rule == "drops the transparency":
        assert np.array_equal(convert(image), image.convert("RGB"))
    else:
        assert rule.startswith("clips")
        clipped = np.nan_to_num(np.asarray(image).astype(float)).clip(0, 255)[..., None]
        shown = slice(None) if "transparency" not in image.info else np.asarray(image) != image.info["transparency"]
        assert np.abs(convert(image) - clipped)[shown].max() <= 1


@pytest.mark.parametrize("name", [name for name in TABLE if not TABLE[name][0].startswith("refused")])
def test_preprocess_and_a_second_reading(name, preprocess):
    rgb = to_rgb(modes.of(name))
    assert np.array_equal(to_rgb(rgb), rgb)
    assert torch.equal(preprocess(modes.of(name)), preprocess(rgb))


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name, preprocess):
    dtype, shape = name.split(" ", 1)
    array = np.zeros([{"H": 4, "W": 6}.get(side) or int(side) for side in shape.strip("()").split(", ")], dtype)
    with pytest.raises(ValueError, match=r"ndarray.*Image\.fromarray"):
        preprocess(array)
    (mode,) = ARRAYS[name]
    if mode == "Pillow's TypeError":
        with pytest.raises(TypeError):
            Image.fromarray(array)
    else:
        assert Image.fromarray(array).mode == mode.strip("`")


class TestRefused:
    @pytest.mark.parametrize("values", [[[-1, 5]], [[65536]], [[-(2**31)]]])
    def test_integers_beyond_16_bits(self, values, preprocess):
        with pytest.raises(ValueError, match=rf"{values[0][0]}.*0 to 65535.*fromarray"):
            preprocess(Image.fromarray(np.array(values, np.int32)))

    @pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
    def test_no_pixels(self, size, preprocess):
        with pytest.raises(ModeError, match=f"{size[0]} x {size[1]}"):
            preprocess(Image.new("RGB", size))

    @pytest.mark.parametrize(("mode", "key"), [("RGB", b"ab"), ("RGB", (1, 2)), ("P", 300), ("P", bytes(300))])
    def test_a_key_that_the_mode_cannot_have(self, mode, key, preprocess):
        with pytest.raises(ModeError, match=rf"transparency.*mode {mode}.*delete"):
            preprocess(modes.with_key(Image.new(mode, (4, 4)), key))

    def test_a_file_closed_before_it_was_read(self, tmp_path, preprocess):
        path = tmp_path / "a.png"
        Image.new("RGB", (4, 4)).save(path)
        with Image.open(path) as within:
            pass
        closed = Image.open(path)
        closed.close()
        with open(path, "rb") as stream:
            of_stream = Image.open(stream)
        for image in (within, closed, of_stream):
            with pytest.raises(ModeError, match=r"closed.*image\.load\(\)"):
                preprocess(image)


def test_what_is_no_transparency(preprocess):
    """An empty entry, or one that PIL carried over to a mode without a meaning for it."""
    for mode, key in (("RGB", None), ("CMYK", 3), ("LAB", 1), ("HSV", 0)):
        image = modes.with_key(modes.of(mode), key)
        assert np.array_equal(to_rgb(image), modes.of(mode).convert("RGB"))


def png_with_key(bits: int, color: int, row: bytes, key: bytes) -> Image.Image:
    """Two pixels; Pillow writes no PNG of these kinds with a transparent color."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">2I5B", 2, 1, bits, color, 0, 0, 0)) + chunk(b"tRNS", key)
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("bits", "color", "row", "key", "opaque"),
    [
        (2, 0, b"\x60", b"\0\1", 170),  # pixels 1 and 2
        (4, 0, b"\x8e", b"\0\x08", 14 * 17),
        (16, 2, b"\x12\x34" * 3 + b"\x34\x34" * 3, b"\x12\x34" * 3, 0x34),
    ],
)
def test_a_transparent_color_of_other_bits_than_8(bits, color, row, key, opaque):
    image = png_with_key(bits, color, row, key)
    assert np.asarray(to_rgb(image)).tolist() == [[[255] * 3, [opaque] * 3]]


def test_a_dark_gray_of_16_bits_is_no_gray_of_8(preprocess):
    """Older releases of Pillow open both as mode I, which a PGM's still is."""
    data = b"P5 2 1 65535\n" + np.array([0, 200], ">u2").tobytes()
    image = Image.open(io.BytesIO(data))
    assert np.asarray(to_rgb(image)).max() == 0


def test_a_class_of_ones_own(preprocess):
    class Mine(Image.Image):
        pass

    image = modes.of("RGBA")
    mine = Mine()
    mine.__dict__.update(image.__dict__)
    assert torch.equal(preprocess(mine), preprocess(image))
