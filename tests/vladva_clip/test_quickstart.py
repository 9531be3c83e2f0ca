"""The quick start on the packaged model, and the command line around it."""

import re
import shutil

import pytest
import torch
from PIL import Image

from vladva_clip import cli, quickstart
from vladva_clip.gallery import ARRANGEMENTS, PAIRS, draw_gallery
from vladva_clip.scenes import HELD_OUT_PAIRS, Scene, holds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run: its directory and its report."""
    directory = tmp_path_factory.mktemp("quickstart")
    return directory, quickstart.run(directory)


def test_it_draws_the_gallery_and_a_contact_sheet(run):
    directory, report = run
    assert len(list(directory.glob("[0-9]*.png"))) == len(PAIRS) * len(ARRANGEMENTS) == 24
    with Image.open(directory / "contact_sheet.png") as sheet:
        sheet.load()
        assert sheet.width > 1000 and len(sheet.getcolors(maxcolors=1 << 24)) > 1000
    assert str(directory / "contact_sheet.png") in report


def test_the_report_has_the_three_questions_beside_chance(run):
    rows = dict(re.findall(r"^(zero-shot|text-to-image|word order).*?([\d.]+)% +[\d.]+%$", run[1], re.MULTILINE))
    assert set(rows) == {"zero-shot", "text-to-image", "word order"}
    assert "a red circle left of a blue square" in run[1] and "a blue square left of a red circle" in run[1]
    assert "drawn scenes only" in run[1] and 'create_model("vladva-7b"' in run[1]


def test_the_packaged_model_is_far_above_chance(run):
    """Of eight classes; the bare base is a weak encoder, so the floor is half of the pictures."""
    top1 = float(re.search(r"top-1 +([\d.]+)%", run[1])[1])
    assert top1 >= 50


def test_it_reads_the_files_back(tmp_path):
    gallery = draw_gallery(tmp_path)
    before = quickstart.ask("vladva-tiny", gallery)
    shutil.copy(gallery[-1].path, gallery[0].path)
    after = quickstart.ask("vladva-tiny", gallery)
    assert torch.allclose(after.similarity[:, 0], after.similarity[:, -1], atol=1e-5)
    assert not torch.allclose(after.similarity[:, 0], before.similarity[:, 0], atol=1e-3)


def test_captions_are_true_and_swaps_false(tmp_path):
    for index, picture in enumerate(draw_gallery(tmp_path)):
        (first, second), (relation, place, other) = PAIRS[index // 3], ARRANGEMENTS[index % 3]
        scene = Scene.of([(*first[::-1], place), (*second[::-1], other)], seed=index)
        assert holds(relation, *scene.objects)
        said = picture.caption.replace("an orange", "a orange")
        assert said == f"a {' '.join(first)} {relation} a {' '.join(second)}" and "a orange" not in picture.caption
        assert len({picture.caption, *picture.swaps}) == 4
        assert sorted(picture.swaps[0].split()) == sorted(picture.caption.split()) == sorted(picture.swaps[1].split())


def test_no_class_is_a_held_out_pair():
    assert not {pair for pairs in PAIRS for pair in pairs} & HELD_OUT_PAIRS


def test_command_line(capsys):
    assert cli.main(["models"]) == 0
    assert "vladva-7b:training_free" in capsys.readouterr().out


def test_what_the_user_can_mend_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["quickstart", "--output-dir", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("vladva: ")
