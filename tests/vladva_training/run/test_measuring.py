"""Which evaluation is the best so far."""

import pytest

from vladva_training.run.measuring import Measuring
from vladva_training.run.state import Best, RunState

FIRST = Best("recall", 0.5, 3)


def better(metric: str | None, value: float, best: Best | None) -> Best | None:
    return Measuring(lambda count: {}, 8, metric).better({metric: value}, RunState(step=6, best=best))


@pytest.mark.parametrize(("value", "expected"), [(0.6, Best("recall", 0.6, 6)), (0.5, None), (0.4, None)])
def test_the_larger_is_better_and_of_equals_the_first_stays(value, expected):
    assert better("recall", value, FIRST) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.4, Best("ntp_loss", 0.4, 6)), (0.5, None), (0.6, None)])
def test_of_losses_the_smaller_is_better(value, expected):
    assert better("ntp_loss", value, Best("ntp_loss", 0.5, 3)) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("best", [None, Best("ntp_loss", 0.5, 3)])
def test_what_is_no_number_is_never_the_best(value, best):
    assert better("ntp_loss", value, best) is None


def test_without_a_metric_nothing_is_best():
    assert better(None, 0.5, None) is None
    assert Measuring.none().figures() == {}
