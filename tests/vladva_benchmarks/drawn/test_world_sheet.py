"""The contact sheet of the world: as many scenes as asked, and a family whose captions tell its members apart."""

import numpy as np
import pytest
from PIL import Image

from tests.support.saying_truth import Reading
from vladva_benchmarks.drawn import world_sheet
from vladva_clip.scenes import VARIED_MEMBERS


@pytest.mark.parametrize("style", ["varied", "unseen"])
def test_the_captions_of_a_family_are_true_of_their_member_and_false_of_the_first(style):
    members, captions = world_sheet._told_apart(style)
    assert len(captions) == len(members) == len(VARIED_MEMBERS)
    assert all(Reading(caption).true_of(member) for caption, member in zip(captions, members, strict=True))
    assert not any(Reading(caption).true_of(members[0]) for caption in captions[1:])


def test_the_command_writes_a_small_sheet_with_a_picture_in_each_place(tmp_path, capsys):
    path = tmp_path / "sheet.png"
    assert world_sheet.main(["--style", "varied", "--rows", "2", "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"sheet: {path}\n" and path.stat().st_size < 200_000
    pixels = np.asarray(Image.open(path).convert("RGB"), int)
    assert pixels.shape[1] > 12 * world_sheet.SIDE
    assert np.linalg.norm(pixels - np.asarray(world_sheet.sheet("varied", 2), int), axis=2).max() < 60
    classic = world_sheet.sheet("classic", 1)
    assert classic.height < pixels.shape[0] / 2  # one row, and no family of eight
