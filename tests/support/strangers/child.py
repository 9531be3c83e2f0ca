"""Loads in a forked process, which may hang, die or swell without harm to the one that forks it."""

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.support.strangers.entries import Entry, Foreign
from tests.support.strangers.guard import Guard, Meter, cpu_limit, limit_memory

HANG = 20.0  # seconds by the clock, on a machine that others use too; a load takes a twentieth of one


@dataclass(frozen=True)
class Job:
    """One load. prepare: lays the directory out and returns what was done to it."""

    entry: Entry
    root: Path
    prepare: Callable[[], list[str]]


def run(jobs: list[Job], guard: Guard, log: Path) -> Iterator[dict[str, Any]]:
    """Do jobs one after the other in a process of their own; if one kills it, the rest go on in another.

    Args:
        jobs: in turn.
        guard: whose hook is installed and has learned.
        log: a file that takes what the process prints.

    Yields:
        For each job `outcome`, `error`, `done`, `events`, `messages`, `seconds`, `bytes`, and `features` as hex, which
        are equal for equal features. The outcome is "right", "ValueError", "foreign" for what is open_clip's to read,
        another exception's name, "hangs" or "dies"; once loaded, "late" for a ValueError of ours and "broken" for all
        else that goes wrong.
    """
    while jobs:
        count = 0
        for found in _forked(jobs, guard, log):
            yield found
            count += 1
        jobs = jobs[count:]


def _forked(jobs: list[Job], guard: Guard, log: Path) -> Iterator[dict[str, Any]]:
    """Results until all jobs are done, or one of them has ended the process."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _in_child(jobs, guard, log, sending)
    os.close(sending)
    with os.fdopen(receiving, "rb", buffering=0) as pipe:
        lines = _Lines(pipe)
        for _ in jobs:
            started = time.monotonic()
            done = json.loads(lines.next() or b"[]")
            if text := lines.next():
                yield {**json.loads(text), "done": done}
            else:
                yield {**_ended(child, time.monotonic() - started, log), "done": done}
                return
    os.waitpid(child, 0)


class _Lines:
    """Lines that come through a pipe; an empty one when it has been closed, or nothing comes for too long."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.text = pipe, b""

    def next(self) -> bytes:
        while b"\n" not in self.text:
            piece = self.pipe.read(1 << 16) if select.select([self.pipe], [], [], HANG)[0] else b""
            if not piece:
                return b""
            self.text += piece
        line, _, self.text = self.text.partition(b"\n")
        return line


def _ended(child: int, seconds: float, log: Path) -> dict[str, Any]:
    """What is to be said of a process that sends nothing more."""
    hangs = seconds >= HANG
    if hangs:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    hangs = hangs or os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
    error = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}"
    return _found("hangs" if hangs else "dies", f"{error}: {log.read_text(errors='replace')[-300:]}", seconds)


def _found(
    outcome: str, error: str = "", seconds: float = 0.0, memory: int = 0, features: tuple = ()
) -> dict[str, Any]:
    hexed = [part.view(-1).float().numpy().tobytes().hex() for part in features]
    found = {"outcome": outcome, "error": error, "seconds": seconds, "bytes": memory, "features": hexed}
    return {**found, "events": [], "messages": []}


def _in_child(jobs: list[Job], guard: Guard, log: Path, pipe: int) -> None:
    """Do the jobs, send what came of each, and end without cleaning up what is the parent's."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        torch.set_num_threads(1)  # makes torch's pool anew after a fork; two threads that do it at once fail
        limit_memory()
        with os.fdopen(pipe, "wb", buffering=0) as file:
            for job in jobs:
                file.write(json.dumps(job.prepare()).encode() + b"\n")
                file.write(json.dumps(_guarded(job, guard)).encode() + b"\n")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _guarded(job: Job, guard: Guard) -> dict[str, Any]:
    os.chdir(job.root)  # shutil.rmtree opens by names alone, which then lie where they belong
    guard.events.clear()
    guard.messages.clear()
    meter = Meter()
    with cpu_limit(), guard.watch():
        found = _loaded(job.entry, job.root, meter)
    return {**found, "events": guard.events[:6], "messages": guard.messages[:3]}


def _loaded(entry: Entry, root: Path, meter: Meter) -> dict[str, Any]:
    try:
        loaded = entry.load(root)
        figures = meter.read()
    except Foreign:
        return _found("foreign")
    except ValueError as error:
        return _found("ValueError", _text(error), *meter.read())
    except BaseException as error:  # whatever it is, it goes into the report
        return _found(type(error).__name__, f"{_text(error)} {_place(error)}", *meter.read())
    try:
        return _found("right", "", *figures, entry.check(loaded, root))
    except BaseException as error:
        outcome = "late" if isinstance(error, ValueError) and _is_ours(error) else "broken"
        return _found(outcome, f"{type(error).__name__}: {_text(error)} {_place(error)}", *figures)


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised in the package, which says what is wrong, rather than somewhere below it."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return "vladva_clip" in Path(trace.tb_frame.f_code.co_filename).parts


def _text(error: BaseException) -> str:
    return str(error)[:300]


def _place(error: BaseException) -> str:
    """Where it was raised: the last frames, shortened."""
    frames, trace = [], error.__traceback__
    while trace:
        frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"({' > '.join(frames[-4:])})"
