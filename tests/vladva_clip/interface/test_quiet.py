"""Transformers' own lines are hidden in quiet calls only; its switches are as before afterwards."""

import logging
import threading
import warnings

import pytest
from safetensors.torch import load_file
from transformers.utils import logging as theirs

import vladva_clip
from tests.support.models import tiny_bases
from vladva_clip.interface import quiet
from vladva_clip.interface.quiet import quiet_transformers

REPORTS = logging.getLogger("transformers.modeling_utils")


class Kept(logging.Handler):
    """Keeps the lines of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def show(capfd):
    """Draw transformers' bar and log its report; returns which of the two is seen."""
    kept = Kept()

    def draw() -> set[str]:
        list(theirs.tqdm(range(2), desc="Loading weights"))
        REPORTS.warning("LlavaForConditionalGeneration LOAD REPORT from: nowhere")
        REPORTS.warning("another line")
        seen = capfd.readouterr().err + " ".join(kept.lines)
        kept.lines.clear()
        assert "another line" in seen
        return {word for word in ("Loading weights", "LOAD REPORT") if word in seen}

    REPORTS.addHandler(kept)
    yield draw
    REPORTS.removeHandler(kept)


BOTH = {"Loading weights", "LOAD REPORT"}


def test_both_are_hidden_inside_and_seen_before_and_after(show):
    assert show() == BOTH
    with quiet_transformers():
        assert show() == set()
        with quiet_transformers():
            assert show() == set()
        assert show() == set()
    assert show() == BOTH


def test_they_are_seen_again_after_an_error(show):
    with pytest.raises(ValueError, match="inside"), quiet_transformers():
        raise ValueError("inside")
    assert show() == BOTH and theirs._tqdm_active is True


def test_another_thread_keeps_its_lines(show):
    found = []
    with quiet_transformers():
        other = threading.Thread(target=lambda: found.append(show()))
        other.start()
        other.join()
        assert show() == set()
    assert found == [BOTH]


def test_calls_that_overlap_in_two_threads_leave_everything_as_it_was(show):
    inside, leave = threading.Event(), threading.Event()

    def longer() -> None:
        with quiet_transformers():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=longer)
    with quiet_transformers():
        other.start()
        inside.wait(10)
    assert show() == BOTH  # while the other call still runs
    leave.set()
    other.join()
    assert show() == BOTH and theirs._tqdm_active is True and quiet._is_wanted not in REPORTS.filters


def test_a_user_who_switched_the_bars_off_keeps_them_off(show):
    theirs.disable_progress_bar()
    try:
        with quiet_transformers():
            assert not theirs.is_progress_bar_enabled()
        assert show() == {"LOAD REPORT"} and not theirs.is_progress_bar_enabled()
    finally:
        theirs.enable_progress_bar()


def test_what_a_user_switches_meanwhile_stays(show):
    with quiet_transformers():
        theirs.disable_progress_bar()
    try:
        assert not theirs.is_progress_bar_enabled()
    finally:
        theirs.enable_progress_bar()
    assert show() == BOTH


@pytest.mark.parametrize("terminal", [True, False])
def test_large_weights_keep_their_bar_on_a_terminal(show, monkeypatch, terminal):
    monkeypatch.setattr(quiet, "_is_terminal", lambda: terminal)
    with quiet_transformers(large=True):
        assert show() == ({"Loading weights"} if terminal else set())


def test_what_the_hidden_report_would_say_is_an_error(tmp_path):
    base = tiny_bases.write_llava(tmp_path / "base")
    name = next(name for name in load_file(base / "model.safetensors") if name.endswith("0.mlp.up_proj.weight"))
    tiny_bases.drop(base, name)
    with pytest.raises(ValueError, match="missing_keys: .*layers.0.mlp.up_proj"):
        vladva_clip.create_model(f"local-dir:{base}")


def test_a_warning_names_the_users_line(bases):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        vladva_clip.create_model(f"local-dir:{bases['qwen2_vl']}", precision="fp16")
    (one,) = [warning for warning in found if "float16" in str(warning.message)]
    assert one.filename == __file__
