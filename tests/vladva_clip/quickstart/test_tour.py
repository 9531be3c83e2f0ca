"""The quick start on the packaged model, and the command line around it."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from vladva_clip import cli
from vladva_clip.quickstart import tour, written_claims
from vladva_clip.quickstart.gallery import ARRANGEMENTS, PAIRS, SHOWN, draw_gallery
from vladva_clip.quickstart.gallery_report import report
from vladva_clip.scenes import HELD_OUT_PAIRS, holds

README = Path(__file__).parents[3] / "README.md"
README_PICTURE = README.parent / "docs/images/quickstart.png"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run: its directory and its report."""
    directory = tmp_path_factory.mktemp("quickstart")
    return directory, tour.run(directory, device="cpu")


def figures_of(report: str) -> dict[str, tuple[float, float]]:
    """Row of the table -> (model, chance)."""
    rows = re.findall(r"^(.*?) +([\d.]+)% +([\d.]+)%$", report, re.MULTILINE)
    return {name: (float(value), float(chance)) for name, value, chance in rows}


def test_it_draws_the_gallery_and_a_contact_sheet(run):
    directory, report = run
    assert len(list(directory.glob("[0-9]*.png"))) == len(PAIRS) * len(ARRANGEMENTS) == 32
    with Image.open(directory / "contact_sheet.png") as sheet:
        assert sheet.width > 1000 and len(sheet.convert("RGB").getcolors(maxcolors=1 << 24)) > 200
    assert (directory / "contact_sheet.png").stat().st_size < 200_000
    assert str(directory / "contact_sheet.png") in report


def test_the_report_has_the_questions_beside_chance(run):
    rows = figures_of(run[1])
    assert {name.split()[0].strip(":,") for name in rows} == {
        *("zero-shot", "text-to-image", "word", "relation", "place", "size", "it")
    }
    assert rows["relation: best of all four"][1] == rows["size: best of four"][1] == 25
    assert rows["relation: above both of the other axis"][1] == 33.3
    assert "a red circle left of a blue square" in run[1] and "a red circle below a blue square" in run[1]
    assert "knows drawn scenes only" in run[1] and "vladva models --fit" in run[1]


@pytest.mark.parametrize("turned", [("relation", "size"), ("size",)])
def test_what_is_weak_stands_apart_and_is_said_in_words(tmp_path, turned):
    """Of a model that is wrong about some questions: a row on either side of the line is on the right side."""
    gallery = draw_gallery(tmp_path)
    answers = tour.ask("vladva-tiny", gallery)
    offered = {name: -scores if name in turned else scores for name, scores in answers.offered.items()}
    said = report(gallery, replace(answers, offered=offered), "a model", tmp_path / "sheet.png")
    strong, weak = said.split("Don't rely on it")[0].split("less than halfway from chance to 100%:")
    assert all(value >= (100 + chance) / 2 - 0.1 for value, chance in figures_of(strong).values())
    assert all(value < (100 + chance) / 2 + 0.1 for value, chance in figures_of(weak).values())
    words = said.split("Don't rely on it")[1].split("Cosines")[0]
    assert ("above and below" in words) == ("relation: best of all four" in weak) == ("relation" in turned)
    assert "small from large" in words and "size: " in weak


def test_without_a_weakness_nothing_is_said_of_it(run):
    """The packaged model is beyond halfway in every row."""
    assert all(value >= (100 + chance) / 2 for value, chance in figures_of(run[1]).values())
    assert "halfway" not in run[1] and "Don't rely" not in run[1] and "\n\n\n" not in run[1]


def test_the_readme_has_the_figures(run):
    """Row for row, within one picture of 32; mend: copy the table that `make quickstart` prints."""
    stored, said = (figures_of(text) for text in (README.read_text(), run[1]))
    assert list(stored) == list(said)
    assert all(abs(stored[name][0] - said[name][0]) < 3.3 and stored[name][1] == said[name][1] for name in said)


def test_the_packaged_model_is_far_above_chance(run):
    """Of eight classes; the bare base is a weak encoder, so the floor is half of the pictures."""
    top1 = float(re.search(r"top-1 +([\d.]+)%", run[1])[1])
    assert top1 >= 50


def test_it_reads_the_files_back(tmp_path):
    gallery = draw_gallery(tmp_path)
    gallery = [gallery[0], gallery[-1]]
    before = tour.ask("vladva-tiny", gallery)
    shutil.copy(gallery[-1].path, gallery[0].path)
    after = tour.ask("vladva-tiny", gallery)
    assert torch.allclose(after.similarity[:, 0], after.similarity[:, -1], atol=1e-5)
    assert not torch.allclose(after.similarity[:, 0], before.similarity[:, 0], atol=1e-3)


def test_captions_are_true_and_swaps_false(tmp_path):
    for picture in draw_gallery(tmp_path):
        (first, second), (relation, place, other) = PAIRS[picture.label], ARRANGEMENTS[int(picture.path.name[:2]) % 4]
        assert holds(relation, *picture.scene.objects)
        assert [(o.pair, o.place) for o in picture.scene.objects] == [(first, place), (second, other)]
        said = picture.caption.replace("an orange", "a orange")
        assert said == f"a {' '.join(first)} {relation} a {' '.join(second)}" and "a orange" not in picture.caption
        assert sorted(picture.swaps[0].split()) == sorted(picture.caption.split()) == sorted(picture.swaps[1].split())


def test_of_four_captions_the_first_alone_is_true(tmp_path):
    """Read by the parser of written captions, which knows the scene and not how the captions were made."""
    for picture in draw_gallery(tmp_path):
        for question, texts in picture.offered.items():
            said = [re.sub(r"^an? (\w+ \w+(?: \w+)?) (left|right|above|below)", r"the \1 is \2", one) for one in texts]
            said = [re.sub(r"(of|above|below) an? ", r"\1 the ", one) for one in said]
            true = [not written_claims.marked(one, picture.scene).endswith("[false]") for one in said]
            assert true == [True, False, False, False] and len(set(texts)) == 4, (question, said)


def test_an_answer_that_is_always_the_same_is_right_as_often_as_chance(tmp_path):
    """Relations and sizes are drawn equally often, each pair of sizes with each relation; the shown ones have all."""
    gallery = draw_gallery(tmp_path)
    kinds = [(p.path.name.split("-")[3], *(o.size for o in p.scene.objects)) for p in gallery]
    assert set(Counter(kinds).values()) == {2} and len(set(kinds)) == 16
    shown = [kinds[index] for index in SHOWN]
    assert len({relation for relation, *_ in shown}) == len({tuple(sizes) for _, *sizes in shown}) == 4


def test_no_class_is_a_held_out_pair():
    assert not {pair for pairs in PAIRS for pair in pairs} & HELD_OUT_PAIRS


def test_command_line(capsys):
    assert cli.main(["models"]) == 0
    assert "vladva-7b" in capsys.readouterr().out


def test_what_the_user_can_mend_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["quickstart", "--output-dir", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("vladva: ")


def test_the_readmes_picture_is_what_is_drawn(run):
    """Mend: `make quickstart`, look at vladva-quickstart/contact_sheet.png, copy it to docs/images/quickstart.png."""
    with Image.open(README_PICTURE) as stored, Image.open(run[0] / "contact_sheet.png") as drawn:
        assert differences(stored, drawn) == []


@pytest.mark.parametrize("change", ["number", "words", "bar", "size"])
def test_another_picture_is_found_out(run, change):
    with Image.open(README_PICTURE) as stored, Image.open(run[0] / "contact_sheet.png") as sheet:
        drawn = sheet.convert("RGB")
        drawn.info = dict(sheet.info)
        if change == "number":
            drawn.info["Description"] = re.sub(r"0\.7(\d\d)", r"0.8\1", drawn.info["Description"], count=1)
        elif change == "words":
            drawn.info["Description"] = drawn.info["Description"].replace("relation", "relations")
        elif change == "bar":
            drawn.paste((26, 127, 55), (154, 470, 454, 590))
        else:
            drawn = drawn.crop((0, 0, drawn.width, drawn.height - 1))
        assert differences(stored, drawn)


def differences(stored: Image.Image, drawn: Image.Image) -> list[str]:
    """What differs beyond kerning and rounding: a cosine's third digit, one picture of 32, one bar's color."""
    if stored.size != drawn.size:
        return [f"sizes {stored.size} and {drawn.size}"]
    texts = [image.info.get("Description", "") for image in (stored, drawn)]
    number = r"-?\d+\.\d+"
    found = ["words"] if len({re.sub(f" *{number}", " N", text) for text in texts}) > 1 else []
    pairs = zip(*(re.findall(f"({number})(%?)", text) for text in texts), strict=False)
    found += [f"{a} and {b}" for (a, unit), (b, _) in pairs if abs(float(a) - float(b)) > (3.3 if unit else 0.004)]
    small = [image.convert("RGB").reduce(6) for image in (stored, drawn)]
    off = np.asarray(ImageChops.difference(*small)).max(axis=2) > 40
    return found + ([f"{off.sum()} of {off.size} places"] if off.sum() > off.size // 400 else [])
