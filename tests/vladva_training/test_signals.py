"""A signal ends the program at once or is kept, and the handlers before it come back."""

import os
import signal
import threading

import pytest

from vladva_training.signals import StopSignals


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 77), (signal.SIGINT, 130)])
def test_signal_ends_the_program_where_nothing_is_lost(number, code):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as error, StopSignals(77):
        os.kill(os.getpid(), number)
    assert error.value.code == code and signal.getsignal(number) is before


def test_deferred_signal_is_kept_and_the_first_one_decides():
    with StopSignals(143) as stop:
        with stop.deferred():
            assert stop.exit_code is None
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
        assert stop.exit_code == 143


def test_other_threads_run_without_handlers():
    entered = []

    def enter() -> None:
        with StopSignals(143) as stop:
            entered.append(stop.exit_code)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [None]
