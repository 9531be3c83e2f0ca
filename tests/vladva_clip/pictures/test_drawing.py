"""Text that fits: every character can be drawn, lines keep to their width, thumbnails to their proportions."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vladva_clip.pictures import drawing
from vladva_clip.pictures.drawing import drawable, fitted, font, shortened, width_of, wrapped, write


@pytest.mark.parametrize(
    "text, drawn",
    [
        ("plain text, 100%", "plain text, 100%"),
        ("café über ﬁn", "cafe uber fin"),
        ("a – b — c", "a - b - c"),
        ("“quoted” ©", "“quoted” ©"),
        ("猫", "\\u732b"),
        ("a\nb\0c\udce9", "a\\nb\\x00c\\udce9"),
        ("👩", "\\U0001f469"),
    ],
)
def test_what_the_font_lacks_becomes_an_escape(text, drawn):
    assert drawable(text) == drawn


def test_what_is_drawn_is_no_box():
    box = bytes(font(12).getmask("\ue000"))
    assert all(bytes(font(12).getmask(sign)) != box for sign in drawable("".join(map(chr, range(32, 0x3000)))))


def test_nothing_makes_writing_fail():
    image = Image.new("RGB", (400, 20), "white")
    write(ImageDraw.Draw(image), (0, 0), "\ud83d\0\n\u202e שלום \U0010ffff")
    assert np.asarray(image).min() < 100


@pytest.mark.parametrize("width", [0, 10, 60, 150])
@pytest.mark.parametrize("text", ["a-rather-long-file-name_0001.jpeg", "猫" * 20 + ".png"])
def test_a_shortened_name_fits_and_keeps_both_ends(text, width):
    short = shortened(text, width)
    assert width_of(short, 12) <= max(width, width_of("...", 12))
    if width >= 60:
        head, tail = short.split("...")
        assert drawable(text).startswith(head) and drawable(text).endswith(tail) and head and tail


def test_a_name_that_fits_stays():
    assert shortened("a.jpg", 100) == "a.jpg"


def test_wrapping_keeps_the_words_and_the_width():
    text = "one two three four five six seven eight nine ten"
    lines = wrapped(text, 120, most=9)
    assert " ".join(lines) == text and max(width_of(line, 12) for line in lines) <= 120
    cut = wrapped(text, 120, most=2)
    assert len(cut) == 2 and cut[0] == lines[0] and cut[1].endswith("...") and width_of(cut[1], 12) <= 120
    assert wrapped(" \n ", 120) == [] and len(wrapped("x" * 500, 120)) == 1


@pytest.mark.parametrize("size, fits", [((400, 200), (100, 50)), ((30, 60), (50, 100)), ((5000, 1), (100, 1))])
def test_a_thumbnail_keeps_its_proportions(size, fits):
    assert fitted(Image.new("RGB", size), 100, 100).size == fits


def test_a_very_long_line_is_measured_a_few_times(monkeypatch):
    """A query may be a page of text without a space."""
    asked, measure = [], drawing.width_of
    monkeypatch.setattr(drawing, "width_of", lambda text, size: asked.append(text) or measure(text, size))
    line = drawing.shortened("x" * 100_000, 300)
    assert len(asked) < 25 and measure(line, 12) <= 300 < measure(line.replace("...", "x...x"), 12)
    assert drawing.shortened("xyz", 1) == "..."
