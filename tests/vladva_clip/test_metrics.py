"""Scores against cases counted by hand."""

import pytest
import torch

from vladva_clip.metrics import foil_accuracy, recall_at_k

SIMILARITY = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.7, 0.6], [0.4, 0.3, 0.1, 0.2]])
POSITIVES = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]], dtype=torch.bool)  # ranks 1, 2 and 4


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
        recall_at_k(torch.full((2, 2), float("nan")), torch.eye(2, dtype=torch.bool), 1)
    with pytest.raises(ValueError, match="expected equal"):
        recall_at_k(SIMILARITY, POSITIVES[:, :2], 1)


def test_foils_must_score_strictly_lower():
    assert foil_accuracy(torch.tensor([0.3, 0.5, 0.2, 0.9]), torch.tensor([0.1, 0.5, 0.4, 0.8])) == 0.5
