"""Scores against cases counted by hand."""

from itertools import permutations

import pytest
import torch

from vladva_clip.metrics import (
    foil_accuracy,
    itt_accuracy,
    recall_at_k,
    top_1_accuracy,
    tot_accuracy,
    winoground_scores,
)

SIMILARITY = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.7, 0.6], [0.4, 0.3, 0.1, 0.2]])
POSITIVES = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]], dtype=torch.bool)  # ranks 1, 2 and 4
NAN = float("nan")


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 3), (2, 2 / 3), (3, 2 / 3), (4, 1.0)])
def test_recall_counts_queries_whose_best_positive_is_among_the_k_best(k, expected):
    assert recall_at_k(SIMILARITY, POSITIVES, k) == pytest.approx(expected)


def test_a_tie_for_the_last_place_does_not_count():
    similarity, positives = torch.tensor([[0.5, 0.5, 0.1]]), torch.tensor([[True, False, False]])
    assert recall_at_k(similarity, positives, 1) == 0
    assert recall_at_k(similarity, positives, 2) == 1


def test_a_constant_similarity_scores_nothing_at_one():
    assert recall_at_k(torch.ones(4, 4), torch.eye(4, dtype=torch.bool), 1) == 0


def test_a_query_without_a_positive_is_a_miss():
    assert recall_at_k(SIMILARITY, torch.zeros_like(POSITIVES), 4) == 0


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        recall_at_k(torch.full((2, 2), NAN), torch.eye(2, dtype=torch.bool), 1)
    with pytest.raises(ValueError, match="expected equal"):
        recall_at_k(SIMILARITY, POSITIVES[:, :2], 1)


def test_the_best_class_must_be_the_true_one():
    assert top_1_accuracy(SIMILARITY, torch.tensor([0, 1, 3])) == pytest.approx(2 / 3)
    assert top_1_accuracy(torch.ones(2, 3), torch.tensor([0, 1])) == 0


def test_a_class_at_minus_infinity_is_out_of_the_question():
    similarity = SIMILARITY.masked_fill(torch.tensor([False, True, False, False]), float("-inf"))
    assert top_1_accuracy(similarity, torch.tensor([0, 2, 0])) == 1


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 4], [0, -1, 2]])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match="0 to 3"):
        top_1_accuracy(SIMILARITY, torch.tensor(labels))


def test_foils_must_score_strictly_lower():
    assert foil_accuracy(torch.tensor([0.3, 0.5, 0.2, 0.9]), torch.tensor([0.1, 0.5, 0.4, 0.8])) == 0.5


def test_the_image_must_prefer_both_captions_to_the_negative():
    negative = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5])
    caption = torch.tensor([0.6, 0.6, 0.4, 0.5, 0.9])
    paraphrase = torch.tensor([0.7, 0.4, 0.6, 0.9, 0.5])  # right, wrong, wrong, a tie, a tie
    assert itt_accuracy(caption, paraphrase, negative) == pytest.approx(1 / 5)


def test_the_true_captions_must_be_nearest_to_each_other():
    together = torch.tensor([0.9, 0.9, 0.9, 0.9])
    caption_negative = torch.tensor([0.8, 0.95, 0.1, 0.9])
    paraphrase_negative = torch.tensor([0.7, 0.1, 0.95, 0.1])  # right, wrong, wrong, a tie
    assert tot_accuracy(together, caption_negative, paraphrase_negative) == pytest.approx(1 / 4)


def test_a_random_order_of_three_is_right_once_in_three():
    orders = torch.tensor(list(permutations([1.0, 2.0, 3.0]))).T
    assert itt_accuracy(*orders) == tot_accuracy(*orders) == pytest.approx(1 / 3)


def test_winoground_counts_both_images_both_captions_and_all_four():
    all_right = [[0.9, 0.1], [0.2, 0.8]]
    text_only = [[0.9, 0.8], [0.1, 0.2]]  # rows are right, but the first image draws both captions
    image_only = [[0.9, 0.1], [0.8, 0.2]]  # columns are right, but the first caption draws both images
    tied = [[0.5, 0.5], [0.1, 0.9]]
    scores = winoground_scores(torch.tensor([all_right, text_only, image_only, tied]))
    assert scores == {"text": 2 / 4, "image": 3 / 4, "group": 1 / 4}


def test_winoground_of_random_orders_is_the_published_chance():
    scores = winoground_scores(torch.tensor(list(permutations([1.0, 2.0, 3.0, 4.0]))).view(-1, 2, 2))
    assert scores == pytest.approx({"text": 1 / 4, "image": 1 / 4, "group": 1 / 6})


ONE, TWO = torch.tensor([0.1, NAN]), torch.tensor([0.1, 0.2])


@pytest.mark.parametrize(
    "call",
    [
        lambda: foil_accuracy(TWO, ONE),
        lambda: itt_accuracy(TWO, TWO, ONE),
        lambda: tot_accuracy(ONE, TWO, TWO),
        lambda: winoground_scores(torch.full((3, 2, 2), NAN)),
        lambda: top_1_accuracy(ONE[None], torch.tensor([0])),
    ],
)
def test_every_score_refuses_what_is_no_number(call):
    with pytest.raises(ValueError, match="NaN"):
        call()


def test_unequal_or_empty_similarities_are_refused():
    with pytest.raises(ValueError, match="shape"):
        foil_accuracy(TWO, TWO[:1])
    with pytest.raises(ValueError, match="nothing to score"):
        itt_accuracy(TWO[:0], TWO[:0], TWO[:0])
    with pytest.raises(ValueError, match=r"expected \(N, 2, 2\)"):
        winoground_scores(torch.ones(3, 2))
