"""The contact sheet from answers by hand: what a bar's length is, which pictures are shown, what is red."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vladva_clip.pictures.drawing import HEAD, RIGHT, WRONG
from vladva_clip.quickstart import sheet_bars
from vladva_clip.quickstart.contact_sheet import contact_sheet
from vladva_clip.quickstart.gallery import OBJECTS, SHOWN, Answers, class_names, draw_gallery
from vladva_clip.quickstart.gallery_figures import figures, in_words, table


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return draw_gallery(tmp_path_factory.mktemp("gallery"))


def answers_of(gallery, scores: list[float], written: str = "") -> Answers:
    """The same four cosines for every picture and question; all else is right."""
    labels = torch.tensor([picture.label for picture in gallery])
    named = torch.zeros(len(gallery), len(OBJECTS))
    for row, picture in enumerate(gallery):
        named[row, [OBJECTS.index(o.pair) for o in picture.scene.objects]] = 1
    offered = {question: torch.tensor([scores] * len(gallery)) for question in gallery[0].offered}
    return Answers(labels, named, torch.eye(len(gallery)), offered, 31.0, [written] * len(gallery))


def lengths(image: Image.Image, picture: int = 0) -> list[int]:
    """The four bars' lengths in pixels, each measured in a row of pixels through its middle."""
    top = HEAD + sheet_bars.AXIS_HEIGHT + picture * sheet_bars.STEP + 20
    pixels = np.asarray(image).astype(int)[:, sheet_bars.LEFT : sheet_bars.LEFT + sheet_bars.AXIS]
    rows = [pixels[top + bar * sheet_bars.ENTRY] for bar in range(4)]
    return [int((row.min(axis=1) < 200).sum()) for row in rows]


def bars(gallery, scores):
    pictures = [Image.new("RGB", (192, 192))] * len(gallery)
    return sheet_bars.bars("order", ("title", "note"), gallery, pictures, answers_of(gallery, scores))


@pytest.mark.parametrize("scores", [[0.776, 0.774, 0.5, 0.1], [0.02, 0.01, 0.0, -0.3], [0.5, 0.5, 0.5, 0.5]])
def test_a_bar_is_the_cosine_from_zero_on_one_axis(gallery, scores):
    """So a near tie looks like one, however little the four differ; a negative cosine has no bar."""
    drawn = lengths(bars(gallery, scores))
    assert drawn == pytest.approx([sheet_bars.AXIS * max(score, 0) for score in scores], abs=1.5)


def test_a_foil_at_least_as_near_as_the_true_caption_is_red(gallery):
    tie, lost = (np.asarray(bars(gallery, [0.5, other, 0.1, 0.1])).reshape(-1, 3) for other in (0.5, 0.4999))
    assert (tie == WRONG).all(axis=1).sum() > (lost == WRONG).all(axis=1).sum() == 0
    assert (lost == RIGHT).all(axis=1).any()


def test_the_worst_of_all_is_shown():
    scores = torch.tensor([[0.9, 0.1, 0.1, 0.1]]).repeat(32, 1)
    scores[5, 2], scores[9, 1] = 0.8, 0.9  # 9 is shown anyway
    assert sheet_bars.shown(scores) == [*SHOWN, 5]


def test_weak_is_a_rule(gallery):
    """A model that is right everywhere has no weak row; one that ties everywhere is right nowhere."""
    right = figures(gallery, answers_of(gallery, [0.9, 0.1, 0.1, 0.1]))
    assert {row.value for row in right} == {1.0} and not in_words(right) and "less than" not in "".join(table(right))
    tied = figures(gallery, answers_of(gallery, [0.5, 0.5, 0.5, 0.5]))
    assert {row.value for row in tied if row.name.startswith(("word", "relation", "place", "size"))} == {0.0}
    assert len(table(tied)) == len(tied) + 2 and "above and below" in in_words(tied)


def test_written_sentences_are_counted_and_none_is_no_row(gallery):
    text = "A large red circle on the left. The red circle is to the left of the blue square."
    rows = {row.name: row.value for row in figures(gallery, answers_of(gallery, [0.9, 0.1, 0.1, 0.1], text))}
    assert rows["it writes: true relation sentences (of 32)"] == 1 / 32
    assert not [row for row in figures(gallery, answers_of(gallery, [0.9, 0.1, 0.1, 0.1])) if "writes" in row.name]


def test_wrong_predictions_and_ranks_are_drawn(gallery):
    """Every picture wrong: the sheet grows by the lines of the predicted names, and has more red."""
    answers = answers_of(gallery, [0.1, 0.9, 0.1, 0.1])
    right = contact_sheet(gallery, class_names(), answers_of(gallery, [0.9, 0.1, 0.1, 0.1]))
    answers = replace(answers, predicted=(answers.predicted + 1) % len(class_names()))
    wrong = contact_sheet(gallery, class_names(), answers)
    assert wrong.height > right.height
    counts = [(np.asarray(image).reshape(-1, 3) == WRONG).all(axis=1).sum() for image in (right, wrong)]
    assert counts[1] > counts[0] + 10_000
