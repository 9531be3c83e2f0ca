"""Scores against cases worked out by hand, and against the plain definition on random features."""

import math

import pytest
import torch

from vladva_benchmarks.suites import scoring
from vladva_benchmarks.suites.pictures import Picture
from vladva_benchmarks.suites.tasks import Classification, Foils, Mean, Quadruples, Retrieval, Triples
from vladva_clip.metrics import recall_at_k, wrong_items_ahead

EYE = torch.eye(4)


def rows(*degrees: float) -> torch.Tensor:
    """Features on a circle: the nearer the angles, the more alike."""
    radians = torch.tensor([math.radians(angle) for angle in degrees])
    return torch.stack([radians.cos(), radians.sin()], dim=1)


class TestRetrieval:
    def test_several_captions_of_which_one_suffices(self):
        """Image 0 finds its second caption first; image 1's nearest caption is image 0's, its own come second."""
        images, texts = rows(0, 90), rows(60, 1, 80, 170)  # the first two are image 0's
        found = scoring.retrieval(images, texts, torch.tensor([0, 0, 1, 1]))
        assert found["text_retrieval_recall@1"] == 1.0
        # the texts at 1, 80 and 170 degrees find their own image first; the one at 60 finds image 1
        assert found["image_retrieval_recall@1"] == 0.75
        assert found["image_retrieval_recall@5"] == found["text_retrieval_recall@10"] == 1.0

    def test_a_tie_with_a_wrong_item_is_wrong(self):
        images, texts = EYE[:2], EYE[[0, 0]]  # both captions say the same
        found = scoring.retrieval(images, texts, torch.tensor([0, 1]))
        assert found["text_retrieval_recall@1"] == 0.0 and found["text_retrieval_recall@5"] == 1.0
        assert found["image_retrieval_recall@1"] == 0.5

    @pytest.mark.parametrize("block", [1, 64, 1 << 24])
    def test_blocks_are_the_whole(self, monkeypatch, block):
        """The plain definition over the whole matrix, by `topk`, on features without ties."""
        monkeypatch.setattr(scoring, "BLOCK", block)
        generator = torch.Generator().manual_seed(0)
        images = torch.nn.functional.normalize(torch.randn(23, 6, generator=generator), dim=1)
        owners = torch.arange(23).repeat_interleave(3)
        noise = torch.randn(69, 6, generator=generator)
        texts = torch.nn.functional.normalize(images[owners] + noise, dim=1)
        found = scoring.retrieval(images, texts, owners)
        scores = texts @ images.T
        for k in (1, 5, 10):
            right = (scores.topk(k).indices == owners[:, None]).any(1)
            assert found[f"image_retrieval_recall@{k}"] == pytest.approx(right.double().mean().item())
            right = (owners[scores.T.topk(k).indices] == torch.arange(23)[:, None]).any(1)
            assert found[f"text_retrieval_recall@{k}"] == pytest.approx(right.double().mean().item())
        assert 0.1 < found["image_retrieval_recall@1"] < 0.9  # or nothing was tried

    def test_wrong_items_ahead(self):
        similarity = torch.tensor([[0.9, 0.5, 0.7], [0.1, 0.2, 0.2], [0.3, 0.2, 0.1]])
        positives = torch.tensor([[False, True, True], [False, True, False], [False, False, False]])
        assert wrong_items_ahead(similarity, positives).tolist() == [1, 1, 3]
        assert recall_at_k(similarity, positives, 4) == pytest.approx(2 / 3)  # without a positive, never right


class TestClassification:
    def test_by_hand(self):
        """Three of class 0, one of them taken for class 1; one of class 2, right: 3/4, and (2/3 + 1) / 2 by class."""
        images, classes = rows(0, 10, 80, 180), rows(0, 90, 180, 270)
        found = scoring.classification(images, classes, torch.tensor([0, 0, 0, 2]))
        assert found["acc1"] == 0.75 and found["acc5"] == 1.0
        assert found["mean_per_class_recall"] == pytest.approx((2 / 3 + 1) / 2)

    def test_top_5_needs_a_place_among_five(self):
        images = rows(0)
        classes = rows(1, 2, 3, 4, 5, 6)
        assert scoring.classification(images, classes, torch.tensor([4]))["acc5"] == 1.0
        assert scoring.classification(images, classes, torch.tensor([5]))["acc5"] == 0.0

    def test_of_two_classes_of_one_name_the_first_is_found(self):
        found = scoring.classification(EYE[[0, 0]], EYE[[1, 0, 0]], torch.tensor([1, 2]))
        assert found["acc1"] == 0.5 and found["acc5"] == 1.0

    def test_nan_is_refused(self):
        with pytest.raises(ValueError, match="NaN"):
            scoring.classification(EYE * float("nan"), EYE, torch.arange(4))


def pictures(count: int) -> list[Picture]:
    return [Picture(str(number), None) for number in range(count)]


def lookup(items, features):
    table = dict(zip(items, features, strict=True))
    return lambda wanted: torch.stack([table[item] for item in wanted])


class TestTasks:
    def test_foils_a_tie_is_wrong(self):
        """Right, wrong, tied."""
        task = Foils("foils", pictures(3), ["near", "far", "near"], ["far", "near", "near too"])
        images = lookup(task.pictures, rows(0, 0, 0))
        texts = lookup(["near", "far", "near too"], rows(10, 50, 10))
        assert task.score(images, texts) == {"acc": pytest.approx(1 / 3)}

    def test_triples(self):
        """Both scores right; image right and text wrong; image wrong (one positive is behind) and text right."""
        captions, paraphrases, negatives = ["a", "b", "c"], ["a2", "b2", "c2"], ["a3", "b3", "c3"]
        task = Triples("triples", pictures(3), captions, paraphrases, negatives)
        images = lookup(task.pictures, rows(0, 0, 0))
        texts = lookup([*captions, *paraphrases, *negatives], rows(10, -20, 30, 12, 20, 40, 60, 30, 25 - 60))
        found = task.score(images, texts)
        assert found == {"itt": pytest.approx(2 / 3), "tot": pytest.approx(2 / 3)}

    def test_quadruples(self):
        """All right; then both images prefer the second caption, while each caption prefers its own image."""
        first, second, third, fourth = pictures(4)
        task = Quadruples("winoground", [(first, second), (third, fourth)], [("a", "b"), ("c", "d")])
        images = lookup([first, second, third, fourth], rows(0, 90, 0, 90))
        texts = lookup(["a", "b", "c", "d"], torch.cat([rows(10, 80), 0.5 * rows(10), 2 * rows(50)]))
        # third image: 0.49 to c, 1.29 to d; fourth: 0.09 to c, 1.53 to d
        assert task.score(images, texts) == {"text": 0.5, "image": 1.0, "group": 0.5}

    def test_the_mean_of_data_sets_of_unlike_sizes(self):
        one, other = pictures(3)[:1], pictures(3)[1:]
        parts = [Retrieval("one", one, [["a"]]), Retrieval("other", other, [["b"], ["c"]])]
        images, texts = lookup(one + other, EYE[:3]), lookup(["a", "b", "c"], EYE[[0, 2, 1]])
        found = Mean("mean", parts).score(images, texts)
        assert found["image_retrieval_recall@1"] == 0.5  # 1 and 0, however many pictures each has


@pytest.mark.parametrize("template", ["a photo", "a photo of {}", "a {c.__class__}", "a {c:.1}", "a {c", ""])
def test_a_template_without_its_hole_is_found_before_anything_is_embedded(template):
    with pytest.raises(ValueError, match="template 1 is .*expected one hole {c}"):
        Classification("drawn", [], [], ["dog", "cat"], ["{c}", template])
    Classification("drawn", [], [], ["dog", "cat"], ["{c}, a kind of {c}"])
