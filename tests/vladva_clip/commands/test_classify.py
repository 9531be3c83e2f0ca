"""`vladva classify` beside open_clip's own way to classify."""

import json

import pytest
import torch
from PIL import Image

from vladva_clip import cli

LABELS = ["a red circle", "a green star", "a purple diamond", "a blue square, or a yellow triangle"]


@pytest.fixture
def labels_file(tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(LABELS) + "\n\n")
    return str(tmp_path / "labels.txt")


def expected(loaded, paths, texts):
    """Probabilities `(N, C)` as open_clip's README computes them, in float64."""
    model, preprocess, tokenizer = loaded
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(Image.open(path)) for path in paths])).double()
        classes = model.encode_text(tokenizer(texts)).double()
    cosines = torch.nn.functional.cosine_similarity(images[:, None], classes[None], dim=-1)
    return cosines, (model.logit_scale.exp().double() * cosines).softmax(dim=-1)


def test_probabilities_are_those_of_clip(scenes, labels_file, loaded, capsys):
    assert cli.main(["classify", str(scenes), "--labels-file", labels_file, "--top", "9", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    paths = sorted(scenes.iterdir())
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    cosines, probabilities = expected(loaded, paths, LABELS)
    for row, cosine, probability in zip(rows, cosines, probabilities, strict=True):
        order = probability.argsort(descending=True).tolist()
        assert [one["label"] for one in row["labels"]] == [LABELS[index] for index in order]
        for one, index in zip(row["labels"], order, strict=True):
            assert one["cosine"] == pytest.approx(cosine[index].item(), abs=1e-5)
            assert one["probability"] == pytest.approx(probability[index].item(), abs=1e-3)


def test_templates_are_averaged_as_in_zero_shot_classification(scenes, loaded, capsys):
    words = ["--labels", "red circle,green star", "--template", "a {}", "--template", "a picture of a {}"]
    assert cli.main(["classify", str(scenes), *words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    model, preprocess, tokenizer = loaded
    with torch.no_grad():
        image = model.encode_image(preprocess(Image.open(first["file"]))[None], normalize=True)
        texts = [text.format(name) for name in ("red circle", "green star") for text in ("a {}", "a picture of a {}")]
        classes = model.encode_text(tokenizer(texts), normalize=True).view(2, 2, -1).mean(dim=1)
    cosines = torch.nn.functional.cosine_similarity(image, classes)
    found = {one["label"]: one["cosine"] for one in first["labels"]}
    assert [found["red circle"], found["green star"]] == pytest.approx(cosines.tolist(), abs=1e-5)


def test_words_for_people(scenes, capsys):
    picture = sorted(scenes.iterdir())[0]
    assert (
        cli.main(["classify", str(picture), "--labels", "a red circle", "--labels", "a green star", "--top", "1"]) == 0
    )
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == str(picture) and out.splitlines()[1].endswith("a red circle") and "%" in out
    assert out.count("\n") == 2 and "\x1b" not in out
    assert "vladva-tiny" in err and "--model" in err, "nobody chose the model, so it must be named"


def test_a_named_model_needs_no_note(scenes, capsys):
    assert cli.main(["classify", str(scenes), "--labels", "a,b", "--model", "vladva-tiny"]) == 0
    assert capsys.readouterr().err == ""


def test_one_broken_file_among_eight_costs_nothing_but_itself(scenes, capsys):
    broken = sorted(scenes.iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:60])
    assert cli.main(["classify", str(scenes), "--labels", "a,b", "--model", "vladva-tiny", "--json"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 7 and str(broken) not in out
    assert err.startswith(f"vladva: 1 of 8 pictures failed:\n  {broken}: ")


def test_a_missing_file_is_listed_and_the_rest_done(scenes, capsys):
    words = [str(sorted(scenes.iterdir())[0]), "gone.png", "--labels", "a,b", "--model", "vladva-tiny"]
    assert cli.main(["classify", *words]) == 1
    assert "1 of 2 pictures failed:\n  gone.png: " in capsys.readouterr().err


def test_no_picture_at_all_is_said_before_the_model_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["classify", "gone/*.png", "--labels", "a,b", "--model", "no-such-model"]) == 2
    assert "gone/*.png" in capsys.readouterr().err


def test_an_unknown_model_is_one_line(scenes, capsys):
    assert cli.main(["classify", str(scenes), "--labels", "a,b", "--model", "vladva-tinny"]) == 2
    assert "vladva-tiny" in capsys.readouterr().err
