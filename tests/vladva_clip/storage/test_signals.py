"""Signals held back for a moment, real ones."""

import signal
import threading

import pytest

from vladva_clip.storage.signals import held_back

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def seen():
    """Handlers that note their signal and whether the block was over; SIGTERM's raises SystemExit."""
    seen = []

    def note(number, frame):
        seen.append((number, frame.f_code.co_name))
        if number == signal.SIGTERM:
            raise SystemExit(143)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def strike(*numbers: int) -> None:
    for number in numbers:
        signal.raise_signal(number)


def test_handlers_are_called_when_the_block_ends_with_the_frame_of_the_signal(seen):
    with held_back():
        strike(signal.SIGINT, signal.SIGINT)
        assert not seen
    assert seen == [(signal.SIGINT, "strike")] * 2
    strike(signal.SIGINT)
    assert len(seen) == 3


def test_a_handler_that_raises_and_every_handler_is_back(seen):
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with pytest.raises(SystemExit) as end, held_back():
        strike(signal.SIGTERM)
        before_end = list(seen)
    assert end.value.code == 143 and before_end == []
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


def test_an_error_of_the_block_comes_through_and_one_within_another_is_held_to_the_outer_end(seen):
    with pytest.raises(ZeroDivisionError), held_back():
        raise ZeroDivisionError
    with held_back():
        with held_back():
            strike(signal.SIGINT)
        assert not seen
    assert len(seen) == 1


def test_ignored_signals_stay_ignored_and_other_threads_touch_nothing(seen):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_back():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    def within() -> None:
        handler = signal.getsignal(signal.SIGTERM)
        with held_back():
            same.append(signal.getsignal(signal.SIGTERM) is handler)

    same: list[bool] = []
    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    assert same == [True]
