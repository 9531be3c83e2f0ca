"""The course of a run: its length, its curve, its checkpoints, and the signals that end it."""

import json
import math
import os
import signal

import pytest
import torch
from torch.utils.data import Dataset

from vladva_training.tiny.course import Course, Trainer, begin, run


class Numbers(Dataset):
    """Item `step` is the step."""

    def __getitem__(self, step):
        return step


class Counting(Trainer):
    """Adds up the steps it was given; its validation losses are given."""

    def __init__(self, course, losses=(), signal_at=None):
        super().__init__(course)
        self.sum = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.sum.weight)
        self.losses, self.signal_at, self.seen = list(losses), signal_at, []

    parts = property(lambda self: {"sum": self.sum})
    data = property(lambda self: Numbers())
    settings = {"seed": 0}  # noqa: RUF012

    def learn(self, batch):
        self.seen.append(batch)
        with torch.no_grad():
            self.sum.weight += batch
        if batch == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": float(batch)}

    def validate(self):
        return {"loss": self.losses.pop(0)}

    def write(self, directory):
        (directory / "result").write_text(str(self.sum.weight.item()))


def lines_of(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def silent(*args, **kwargs):
    """Print nothing."""


def test_a_course_wants_one_length():
    with pytest.raises(ValueError, match="exactly one"):
        Course()
    with pytest.raises(ValueError, match="exactly one"):
        Course(steps=3, minutes=2)


def test_learning_rate_warms_up_holds_and_decays():
    course = Course(steps=1000, learning_rate=1.0, warmup_steps=100, decay_share=0.4)
    rates = [course.learning_rate_at(step, 0) for step in (0, 100, 600, 800, 1000)]
    assert rates == pytest.approx([0.01, 1.0, 1.0, 0.505, 0.01])
    by_clock = Course(minutes=10, learning_rate=1.0, decay_share=0.4)
    assert by_clock.learning_rate_at(500, 480) == pytest.approx(0.505)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_step_gets_its_item(tmp_path, workers):
    trainer = Counting(Course(steps=5, validate_every=0, workers=workers))
    run(trainer, tmp_path, log=silent)
    assert trainer.seen == [0, 1, 2, 3, 4]
    assert (tmp_path / "result").read_text() == "10.0" and not list(tmp_path.rglob(".*"))


def test_a_signal_saves_and_the_rest_follows(tmp_path):
    first = Counting(Course(steps=6, validate_every=0, save_every=0, log_every=1), signal_at=2)
    with pytest.raises(SystemExit) as stopped:
        run(first, tmp_path, log=silent)
    assert stopped.value.code == 143 and first.seen == [0, 1, 2] and not (tmp_path / "result").exists()
    second = Counting(Course(steps=6, validate_every=0, log_every=1))
    second.resume(tmp_path)
    run(second, tmp_path, log=silent)
    assert second.seen == [3, 4, 5] and (tmp_path / "result").read_text() == "15.0"
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_the_curve_drops_what_came_after_the_checkpoint(tmp_path):
    first = Counting(Course(steps=5, validate_every=0, log_every=1, save_every=2))
    first.save = lambda directory: Trainer.save(first, directory) if first.step == 2 else None
    run(first, tmp_path, log=silent)
    second = Counting(Course(steps=3, validate_every=0, log_every=1))
    second.resume(tmp_path)
    run(second, tmp_path, log=silent)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3]


def test_a_run_ends_when_validation_does_not_improve(tmp_path):
    losses = [3.0, 2.0, 2.5, 1.5, 1.6, 1.5, 1.0]
    trainer = Counting(Course(steps=99, validate_every=2, patience=2), losses)
    run(trainer, tmp_path, log=silent)
    assert trainer.step == 12 and trainer.best == 1.5
    assert [line["loss"] for line in lines_of(tmp_path) if line["event"] == "evaluation"] == losses[:6]


def test_a_run_by_the_clock_ends(tmp_path):
    trainer = Counting(Course(minutes=0.001, validate_every=0))
    run(trainer, tmp_path, log=silent)
    assert trainer.done and trainer.seconds >= 0.06


def test_progress_lines_name_losses_speed_and_time_left(tmp_path):
    printed = []
    run(
        Counting(Course(steps=4, log_every=2, validate_every=4), [1.0]),
        tmp_path,
        log=lambda line, flush: printed.append(line),
    )
    assert len(printed) == 3 and "validation" in printed[2]
    assert all(word in printed[0] for word in ("step 2", "loss 0.500", "s/step", "min left"))


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint\.pt does not exist.*without --resume"):
        Counting(Course(steps=1)).resume(tmp_path)


def test_a_run_goes_on_with_its_own_settings(tmp_path):
    run(Counting(Course(steps=1, validate_every=0)), tmp_path, log=silent)
    changed = Counting(Course(steps=2, validate_every=0))
    changed.settings = {"seed": 1}
    with pytest.raises(ValueError, match="seed=0, now 1"):
        begin(changed, tmp_path, resume=True)
    assert changed.step == 0


def test_a_new_run_overwrites_none(tmp_path):
    first = Counting(Course(steps=1, validate_every=0))
    begin(first, tmp_path, resume=False)
    run(first, tmp_path, log=silent)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is the state of a run.*--resume"):
        begin(Counting(Course(steps=1)), tmp_path, resume=False)


def test_the_end_is_validated(tmp_path):
    run(Counting(Course(steps=5, validate_every=2, log_every=0), [3.0, 2.0, 1.0]), tmp_path, log=silent)
    assert [(line["event"], line["step"]) for line in lines_of(tmp_path)] == [
        ("evaluation", step) for step in (2, 4, 5)
    ]


def test_nothing_is_better_than_the_first():
    assert Counting(Course(steps=1)).best == math.inf
