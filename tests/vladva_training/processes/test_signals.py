"""A signal ends the program at once or is kept, and the handlers before it come back."""

import contextlib
import os
import signal
import threading
import time

import pytest

from vladva_training.processes import signals
from vladva_training.processes.signals import EndedAtOnce, StopSignals


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


def test_second_ctrl_c_of_the_user_ends_the_program_at_once(monkeypatch):
    moments = iter([10.0, 10.1, 11.0])  # the second one is the first, passed on by `timeout` and the like
    monkeypatch.setattr(signals.time, "monotonic", lambda: next(moments))
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(EndedAtOnce):
            os.kill(os.getpid(), signal.SIGINT)


def test_torchrun_s_copy_of_ctrl_c_is_no_second_one(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setattr(signals, "PATIENCE", 0.0)
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.exit_code == 130


def test_signal_ends_a_wait_within_a_deferred_block():
    with StopSignals() as stop, stop.deferred():
        with pytest.raises(SystemExit), stop.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # deferred again
        with pytest.raises(SystemExit), stop.at_once():
            pytest.fail("a signal had come before")
        assert stop.exit_code == 143


@pytest.mark.parametrize("number, code", [(signal.SIGHUP, 129), (signal.SIGUSR1, 138), (signal.SIGXCPU, 152)])
def test_signals_that_would_end_the_program_without_a_word_are_taken_where_they_are_free(number, code):
    with pytest.raises(SystemExit) as error, StopSignals(), StopSignals():
        os.kill(os.getpid(), number)
    assert error.value.code == code and signal.getsignal(number) is signal.SIG_DFL
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), number)
            assert stop.exit_code is None
    finally:
        signal.signal(number, before)


def test_a_signal_that_a_library_turns_into_its_own_error_ends_the_program_all_the_same():
    with pytest.raises(SystemExit) as error, StopSignals(77):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as caught:
            raise ImportError("a module can't be imported") from caught
    assert error.value.code == 77 and isinstance(error.value.__cause__, ImportError)


def swallowed() -> None:
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_a_library_swallows_ends_the_program_before_anything_could_be_lost():
    with pytest.raises(SystemExit) as error, StopSignals():
        swallowed()
    assert error.value.code == 143
    with pytest.raises(SystemExit), StopSignals() as stop:
        swallowed()
        with stop.deferred():
            pytest.fail("it is not deferred")
    with pytest.raises(SystemExit), StopSignals():
        swallowed()
        with StopSignals():
            pytest.fail("an outer block had one")


def test_other_threads_run_without_handlers():
    entered = []

    def enter() -> None:
        with StopSignals(143) as stop:
            entered.append(stop.exit_code)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [None]
