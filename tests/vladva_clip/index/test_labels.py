"""Labels: their features and scores against formulas, and files with a line per text."""

import codecs

import pytest
import torch

from tests.support.samples import image_batch
from vladva_clip.index.labels import classify, label_features
from vladva_clip.index.lines import read_lines

LABELS, TEMPLATES = ["a red circle", "a dog", "two blue squares"], ["a photo of {}.", "{}"]


def test_features_are_the_mean_over_the_templates(model, tokenizer):
    found = label_features(model, tokenizer, LABELS, TEMPLATES)
    assert found.dtype == torch.float32 and found.shape == (model.embed_dim, len(LABELS))
    for column, label in zip(found.T, LABELS, strict=True):
        texts = [template.format(label) for template in TEMPLATES]
        mean = model.encode_text(tokenizer(texts), normalize=True).double().mean(dim=0)
        torch.testing.assert_close(column.double(), mean / mean.norm(), rtol=0, atol=1e-5)


def test_one_label_is_enough(model, tokenizer):
    assert label_features(model, tokenizer, ["a dog"], ["{}"]).shape == (model.embed_dim, 1)


def test_a_label_twice_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="'a dog'"):
        label_features(model, tokenizer, [*LABELS, "a dog"], ["{}"])


@pytest.mark.parametrize("as_numpy", [False, True])
def test_scores_equal_the_formula(model, tokenizer, as_numpy):
    features = model.encode_image(image_batch(model, 3), normalize=True)
    classifier, scale = label_features(model, tokenizer, LABELS, ["{}"]), model.logit_scale.exp().item()
    found = classify(features.numpy() if as_numpy else features, classifier, scale, 2)
    assert [len(row) for row in found] == [2, 2, 2]
    for picture, row in zip(features.double(), found, strict=True):
        cosines = [float(picture @ classifier[:, label].double()) for label in range(len(LABELS))]
        exps = [torch.tensor(scale * cosine).double().exp().item() for cosine in cosines]
        best = sorted(range(len(LABELS)), key=lambda label: -cosines[label])[:2]
        assert [label for label, _, _ in row] == best
        for label, cosine, probability in row:
            assert cosine == pytest.approx(cosines[label], abs=1e-9)
            assert probability == pytest.approx(exps[label] / sum(exps), abs=1e-6)


def test_ties_are_in_the_order_of_the_labels_and_top_may_be_more_than_there_are():
    found = classify(torch.eye(4)[:1], torch.zeros(4, 900), 100.0, 1000)
    assert found == [[(label, 0.0, pytest.approx(1 / 900)) for label in range(900)]]
    with pytest.raises(ValueError, match="top"):
        classify(torch.eye(4)[:1], torch.zeros(4, 9), 100.0, 0)


class TestReadLines:
    @pytest.mark.parametrize(
        "content",
        [b"a cat\ncaf\xc3\xa9\n", codecs.BOM_UTF8 + b"a cat\r\n\r\n  caf\xc3\xa9 \t\r\n", b"\n\ra cat\rcaf\xc3\xa9"],
    )
    def test_lines(self, tmp_path, content):
        (tmp_path / "labels.txt").write_bytes(content)
        assert read_lines(tmp_path / "labels.txt") == ["a cat", "café"]

    def test_only_line_breaks_end_a_line(self, tmp_path):
        """`str.splitlines` would also split at these."""
        (tmp_path / "labels.txt").write_text("a\u2028b\x0cc\x85d", encoding="utf-8")
        assert read_lines(tmp_path / "labels.txt") == ["a\u2028b\x0cc\x85d"]

    @pytest.mark.parametrize(
        "content, word",
        [
            (b"", "empty"),
            (b" \n\r\n\t", "empty"),
            (codecs.BOM_UTF8, "empty"),
            (b"a\r\nb\rcaf\xe9\nd", "line 3 "),
            (codecs.BOM_UTF8 + b"a\nb\nc\xff", "line 3 "),
            (b"a\nb\0c", "line 2 "),
            ("a cat\na dog".encode("utf-16"), "line 1 "),
        ],
    )
    def test_what_is_no_list_of_texts_is_refused(self, tmp_path, content, word):
        (tmp_path / "labels.txt").write_bytes(content)
        with pytest.raises(ValueError, match="labels.txt") as caught:
            read_lines(tmp_path / "labels.txt")
        assert word in str(caught.value)

    def test_wrong_lines_are_listed_if_that_is_asked_for(self, tmp_path):
        path, wrong = tmp_path / "texts.txt", []
        path.write_bytes(b"a cat\ncaf\xe9\n\na\0b\r\na dog")
        assert read_lines(path, wrong) == ["a cat", "a dog"]
        assert [one.name for one in wrong] == [f"{path}: line 2", f"{path}: line 4"]
        assert "UTF-8" in wrong[0].reason and "NUL" in wrong[1].reason
        path.write_bytes("a cat\na dog".encode("utf-16"))
        with pytest.raises(ValueError, match="line 1 has a NUL"):
            read_lines(path, wrong)

    def test_a_missing_file_and_a_folder_are_refused(self, tmp_path):
        for path in (tmp_path, tmp_path / "missing.txt"):
            with pytest.raises(ValueError, match=path.name):
                read_lines(path)
