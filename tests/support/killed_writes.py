"""Kills a writer at every step it takes, and reports what a reader then finds. Without torch, so that forks are quick.

    python killed_writes.py ACTION BEFORE DIRECTORY

ACTION is file, folder, remove, or two-renames (a folder, where the system can't exchange two in one step). BEFORE
is what is there at the start, "" for nothing. Prints a JSON list: for each step, what was found after the kill, after a
next write that was broken off, and after one that was finished. The last entry is of a writer that wasn't killed.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from vladva_clip.storage import whole

TRACED = {whole.__file__, shutil.__file__, os.__file__}  # what opens, fills, moves and removes files
OLD, NEW, LATER = "old " * 1000, "new " * 2000, "later"


def write_file(path: Path, text: str) -> None:
    whole.write(path, text.encode())


def write_folder(path: Path, text: str) -> None:
    """Two files that belong together, one of them in a folder of its own and read-only."""
    with whole.folder(path) as folder:
        (folder / "a").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_text(text)
        (folder / "sub" / "b").chmod(0o444)


def found(path: Path) -> str | None:
    """What a reader sees: the text (of a folder, that of all its files), None for nothing, "torn" for a mixture."""
    if path.is_dir():
        texts = {file.relative_to(path).as_posix(): file.read_text() for file in path.rglob("*") if file.is_file()}
        return texts["a"] if set(texts) == {"a", "sub/b"} and texts["a"] == texts["sub/b"] else "torn"
    return path.read_text() if path.exists() else None


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def killed(call: Callable[[], object], nth: int) -> bool:
    """Run a call in a fork that is killed at its nth step: a line of `TRACED`, or a change that it asks the system for.

    Returns:
        Whether it was killed; False if the call ended in fewer steps.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        _kill_at(nth)
        call()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the writer failed with status {status}")
    return status != 0


def _kill_at(nth: int) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(frame, event, _):
        if frame.f_code.co_filename not in TRACED:
            return None
        step()
        return trace

    changes = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
    sys.addaudithook(lambda event, _: step() if event in changes else None)
    sys.settrace(trace)


def main(action: str, before: str, directory: Path) -> list[dict]:
    write = write_file if action == "file" else write_folder
    if action == "two-renames":
        whole._exchange = lambda *_: False
    reports, cut = [], True
    while cut:
        path = directory / str(len(reports)) / "name"
        path.parent.mkdir()
        if before:
            write(path, before)
        call = (lambda: whole.remove(path)) if action == "remove" else (lambda: write(path, NEW))  # noqa: B023
        cut = killed(call, len(reports) + 1)
        reports.append({"killed": found(path)})
        with contextlib.suppress(InterruptedError), whole.scratch(path):
            raise InterruptedError
        reports[-1]["broken off"] = found(path), names(path.parent)
        write(path, LATER)
        reports[-1]["finished"] = found(path), names(path.parent)
    return reports


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
