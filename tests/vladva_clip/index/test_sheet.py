"""The contact sheet: every hit in its place, proportions kept, broken pictures listed, any Unicode, small files."""

import os

import numpy as np
import pytest
from PIL import Image

from vladva_clip.index.search import Hit
from vladva_clip.index.sheet import BELOW, BOX, COLUMNS, GAP, MOST, QUERY, _sheet, draw_sheet
from vladva_clip.pictures.drawing import MARGIN, WRONG

COLORS = [(0, 0, 255), (0, 255, 0), (255, 255, 0), (0, 255, 255), (255, 0, 255), (120, 60, 0), (0, 90, 90)]


@pytest.fixture
def hits(tmp_path) -> list[Hit]:
    """Seven pictures in one color each, 100 x 40 pixels."""
    for number, color in enumerate(COLORS):
        Image.new("RGB", (100, 40), color).save(tmp_path / f"{number}.png")
    return [Hit(rank, 1 - rank / 100, "image", str(tmp_path / f"{rank - 1}.png")) for rank in range(1, 8)]


def drawn(query, hits, path) -> np.ndarray:
    draw_sheet(query, hits, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def area_of(pixels: np.ndarray, color) -> tuple[int, int, int, int]:
    """Left, top, width and height of what has a color, up to the palette's rounding."""
    rows, columns = np.nonzero(abs(pixels - np.array(color)).max(axis=2) < 12)
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1


def test_pictures_stand_in_the_order_of_the_ranking(hits, tmp_path):
    pixels = drawn("a text", hits, tmp_path / "sheet.png")
    first = area_of(pixels, COLORS[0])
    for place, color in enumerate(COLORS):
        left, top, *size = area_of(pixels, color)
        assert left - first[0] == place % COLUMNS * (BOX + GAP)
        assert top - first[1] == place // COLUMNS * (BOX + BELOW + GAP)
        assert size == [BOX - 2, round((BOX - 2) * 0.4)], "its proportions"


def test_a_picture_as_query_stands_at_the_left(hits, tmp_path):
    query = tmp_path / "query.png"
    Image.new("RGB", (60, 80), (255, 0, 0)).save(query)
    pixels = drawn(query, hits, tmp_path / "sheet.png")
    left, _, width, height = area_of(pixels, (255, 0, 0))
    assert left == MARGIN + 1 and (width, height) == (round((QUERY - 2) * 0.75), QUERY - 2)
    assert area_of(pixels, COLORS[0])[0] == MARGIN + QUERY + 2 * GAP + 1


def test_pictures_that_vanished_or_broke_are_listed_and_the_rest_is_drawn(hits, tmp_path):
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_text("no picture")
    failures = draw_sheet(tmp_path / "0.png", hits, tmp_path / "sheet.png")
    assert [one.name for one in failures] == [hits[1].name, hits[2].name]
    assert failures[0].reason == "No such file or directory" and "can't be read" in failures[1].reason
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    assert (abs(pixels - WRONG).max(axis=2) < 12).sum() > 100, "the reason is written"
    assert area_of(pixels, COLORS[3])[2] == BOX - 2
    assert [one.name for one in draw_sheet(tmp_path / "1.png", hits[:1], tmp_path / "b.png")] == [hits[1].name]


@pytest.mark.parametrize("query", ["", "猫 " * 200, "שלום", "a\nb\0\t", "\ud83d \udce9", "x" * 3000, "👩‍👩‍👧"])
def test_any_text_can_be_a_query_or_a_hit(hits, tmp_path, query):
    found = [*hits[:1], Hit(2, 0.5, "text", query)]
    pixels = drawn(query, found, tmp_path / "sheet.png")
    assert pixels.shape[0] < 420 and area_of(pixels, COLORS[0])[2] == BOX - 2


def test_a_text_is_drawn_as_text(hits, tmp_path):
    blank = drawn("q", [Hit(1, 0.5, "text", "")], tmp_path / "a.png")
    text = drawn("q", [Hit(1, 0.5, "text", "some words in the index " * 9)], tmp_path / "b.png")
    assert blank.shape == text.shape and (text < 100).sum() > (blank < 100).sum() + 1000


def test_the_ranking_is_in_the_description(hits, tmp_path):
    strange = tmp_path / os.fsdecode(b"caf\xe9\n.png")
    strange.write_bytes((tmp_path / "0.png").read_bytes())
    assert not draw_sheet("猫\nb", [*hits[:2], Hit(3, 0.25, "image", str(strange))], tmp_path / "sheet.png")
    lines = Image.open(tmp_path / "sheet.png").info["Description"].split("\n")
    assert lines[0] == "query: 猫\\nb" and lines[2] == f"2  0.9800  {tmp_path}/1.png"
    assert lines[3] == f"3  0.2500  {tmp_path}/caf\\udce9\\n.png" and len(lines) == 4


def test_a_long_ranking_is_drawn_in_part_and_described_whole(hits, tmp_path):
    many = [hits[0]._replace(rank=rank) for rank in range(1, MOST + 51)]
    pixels = drawn("q", many, tmp_path / "sheet.png")
    rows = MOST // COLUMNS
    assert 0 < pixels.shape[0] - rows * (BOX + BELOW + GAP) < 150
    assert len(Image.open(tmp_path / "sheet.png").info["Description"].split("\n")) == MOST + 51


def test_no_hits_give_the_title_alone(tmp_path):
    assert drawn("nothing like it", [], tmp_path / "sheet.png").shape[0] < 150


def test_ten_photographs_are_a_small_file(shared_data, tmp_path):
    photos = sorted((shared_data / "data/photos").glob("*.JPEG"))
    for start in (0, 40, 100):
        found = [Hit(rank, 0.5, "image", str(path)) for rank, path in enumerate(photos[start : start + 10], start=1)]
        pixels = drawn(photos[start], found, tmp_path / "sheet.png")
        assert (tmp_path / "sheet.png").stat().st_size < 220_000
        assert abs(pixels - np.asarray(_sheet(photos[start], found, []))).mean() < 2, "of 256, by the palette"


def test_it_is_written_whole_or_not_at_all(hits, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out/sheet.png"
    draw_sheet("a", hits, path)
    before = path.read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_sheet("b", hits[:1], path)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["sheet.png"]
