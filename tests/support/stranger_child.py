"""One load in a forked process, which may hang, die or swell without harm to the one that forks it."""

import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

import torch
from stranger_entries import Entry, Foreign
from stranger_guard import Guard, Meter, limit

HANG = 20.0  # seconds by the clock, on a machine that others use too; a load takes a twentieth of one


def run(entry: Entry, root: Path, guard: Guard, log: Path) -> dict[str, Any]:
    """Load a case's directory in a process of its own.

    Args:
        entry: the way in.
        root: the case's directory.
        guard: whose hook is installed and has learned.
        log: a file that takes what the process prints.

    Returns:
        `outcome` ("right", "ValueError", "foreign", another exception's name, "broken", "hangs", "dies"), `error`,
        `events`, `messages`, `seconds`, `bytes`, and `features` as hex, which are equal for equal features.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _in_child(entry, root, guard, log, sending)
    os.close(sending)
    started = time.monotonic()
    text = _received(receiving, started + HANG)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if text:
        return json.loads(text)
    seconds = time.monotonic() - started
    hangs = seconds >= HANG or os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
    error = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}"
    return _found("hangs" if hangs else "dies", f"{error}: {log.read_text(errors='replace')[-300:]}", seconds)


def _found(
    outcome: str, error: str = "", seconds: float = 0.0, memory: int = 0, features: tuple = ()
) -> dict[str, Any]:
    hexed = [part.view(-1).float().numpy().tobytes().hex() for part in features]
    found = {"outcome": outcome, "error": error, "seconds": seconds, "bytes": memory, "features": hexed}
    return {**found, "events": [], "messages": []}


def _received(pipe: int, deadline: float) -> bytes:
    """Everything that comes through a pipe until it is closed; nothing if that takes too long."""
    text = b""
    with os.fdopen(pipe, "rb", buffering=0) as file:
        while select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = file.read(1 << 16)
            if not piece:
                return text
            text += piece
    return b""


def _in_child(entry: Entry, root: Path, guard: Guard, log: Path, pipe: int) -> None:
    """Load, send what came of it, and end without cleaning up."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(root)  # shutil.rmtree opens by names alone, which then lie where they belong
    torch.set_num_threads(1)  # makes torch's pool anew after a fork; two threads that do it at once fail
    guard.messages.clear()
    limit()
    meter = Meter()
    with guard.watch():
        found = _loaded(entry, root, meter)
    found |= {"events": guard.events[:6], "messages": guard.messages[:3]}
    with os.fdopen(pipe, "wb") as file:
        file.write(json.dumps(found).encode())
    os._exit(0)


def _loaded(entry: Entry, root: Path, meter: Meter) -> dict[str, Any]:
    try:
        loaded = entry.load(root)
        figures = meter.read()
    except Foreign:
        return _found("foreign")
    except ValueError as error:
        return _found("ValueError", _text(error), *meter.read())
    except BaseException as error:  # whatever it is, it is told
        return _found(type(error).__name__, f"{_text(error)} {_place(error)}", *meter.read())
    try:
        return _found("right", "", *figures, entry.check(loaded, root))
    except BaseException as error:
        return _found("broken", f"{type(error).__name__}: {_text(error)} {_place(error)}", *figures)


def _text(error: BaseException) -> str:
    return str(error)[:300]


def _place(error: BaseException) -> str:
    """Where it was raised: the last frames, shortened."""
    frames, trace = [], error.__traceback__
    while trace:
        frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"({' > '.join(frames[-4:])})"
