"""docs/cli.md shows what its commands print."""

import re

import pytest
from PIL import Image, ImageChops

from tests.support import console_docs

NUMBER = re.compile(r"([+-]?\d+\.\d+(?:[eE]-?\d+)?)(%?)")


@pytest.fixture(scope="module")
def run_now(tmp_path_factory):
    """The page as its commands would write it now, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("console")
    return console_docs.rewritten(console_docs.PAGE.read_text(), folder), folder


def numbers(text: str) -> list[float]:
    """All decimal numbers, so scaled that machines agree to 0.002: percentages have one digit."""
    return [float(number) / (100 if percent else 1) for number, percent in NUMBER.findall(text)]


def test_the_page_shows_what_is_printed(run_now):
    """The words exactly, numbers as far as machines agree."""
    page = console_docs.PAGE.read_text()
    for shown, now in zip(console_docs.blocks(page), console_docs.blocks(run_now[0]), strict=True):
        assert NUMBER.sub("#", shown) == NUMBER.sub("#", now)
        assert numbers(shown) == pytest.approx(numbers(now), abs=0.002)


def test_the_page_shows_the_picture_that_is_drawn(run_now):
    for name, target in console_docs.PICTURES.items():
        with Image.open(run_now[1] / name) as now, Image.open(console_docs.ROOT / target) as shown:
            assert NUMBER.sub("#", now.text["Description"]) == NUMBER.sub("#", shown.text["Description"])
            assert now.size == shown.size
            assert ImageChops.difference(now.convert("RGB"), shown.convert("RGB")).getextrema()[0][0] < 8


def test_the_page_has_every_command():
    """Nothing can pass because nothing is found."""
    said = [command.split()[1] for block in console_docs.blocks(console_docs.PAGE.read_text())
            for command in console_docs.commands(block) if command.startswith("vladva")]  # fmt: skip
    assert {"classify", "embed", "search", "similarity", "caption"} <= set(said)
