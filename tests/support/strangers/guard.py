"""What a process does while it reads strangers' files: code, programs, sockets, files; its memory and its time."""

import contextlib
import logging
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMED = ("import", "compile", "exec", "open")
ALWAYS = (
    *("pickle.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.", "ctypes."),
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "http.client.connect"),
    *("urllib.Request", "webbrowser.", "code.__new__"),
)
# the families' own; any part of it may be needed
OWN_CODE = re.compile(r"transformers[./]models[./](llava|llama|clip|qwen2|qwen2_vl)\b")
STATUS = "/proc/self/status"
ADDRESS_SPACE = 3 << 30  # bytes beyond what is mapped: a bound for the machine's sake; the test's own is far lower
CPU_SECONDS = 4  # of one load, after which the kernel ends the process


class Guard:
    """An audit hook that learns from honest runs what reading does, and notes everything else.

    `events` is what was done that no honest run does; `messages` what the package logged.
    """

    def __init__(self, *places: Path) -> None:
        self.places = tuple(f"{os.path.realpath(place)}/" for place in places)  # where files may be opened
        self.known: set[str] = set()
        self.events: list[str] = []
        self.messages: list[str] = []
        self.learning = self.watching = False

    def hook(self, event: str, arguments: tuple) -> None:
        """Python's audit hook."""
        if not (self.watching or self.learning):
            return
        what = self._described(event, arguments)
        if what is None or OWN_CODE.search(what):
            return
        if self.learning:
            self.known.add(what)
        elif what not in self.known and what not in self.events:
            self.events.append(what)

    @contextlib.contextmanager
    def learn(self) -> Iterator[None]:
        """Within, everything is taken as honest."""
        self.learning = True
        try:
            yield
        finally:
            self.learning = False

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Within, everything that wasn't learned is noted."""
        self.watching = True
        try:
            yield
        finally:
            self.watching = False

    def listen(self) -> None:
        """Keep what the package logs from now on."""
        handler = logging.Handler()
        handler.emit = lambda record: self.messages.append(record.getMessage())
        logging.getLogger("vladva_clip").addHandler(handler)

    def _described(self, event: str, arguments: tuple) -> str | None:
        if event in NAMED:
            return self._named(event, arguments[0], arguments)
        if event == "socket.connect":
            return f"{event} {arguments[1]!r}"
        return f"{event} {arguments!r:.120}" if event.startswith(ALWAYS) else None

    def _named(self, event: str, thing: Any, arguments: tuple) -> str | None:
        if event == "open":
            return self._opened(thing)
        if event == "exec":
            return f"exec {thing.co_filename}"
        return f"{event} {arguments[1] if event == 'compile' else thing}"

    def _opened(self, path: Any) -> str | None:
        if isinstance(path, int):
            return None
        name = os.fsdecode(path)
        if name == STATUS:  # the meter's
            return None
        real = os.path.realpath(name).replace(f"/proc/{os.getpid()}/", "/proc/self/")
        return None if f"{real}/".startswith(self.places) or _is_loaded_source(real) else f"open {real}"


def _is_loaded_source(path: str) -> bool:
    """Whether it is the code of a module that is loaded: a warning shows the line that it comes from."""
    return path.endswith(".py") and any(getattr(one, "__file__", None) == path for one in list(sys.modules.values()))


class Meter:
    """Counts the process's own CPU time and the growth of its resident memory, from the time it is made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak falls to what is resident now
        self.resident, self.started = _status("VmRSS"), time.process_time()

    def read(self) -> tuple[float, int]:
        """Seconds and bytes since."""
        return time.process_time() - self.started, _status("VmHWM") - self.resident


def limit_memory() -> None:
    """Bound the process's address space, so that no case takes the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    space = pages * os.sysconf("SC_PAGE_SIZE") + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def cpu_limit() -> Iterator[None]:
    """Within, have the kernel end the process after some seconds of CPU time, whatever it is at then."""
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + CPU_SECONDS, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _status(name: str) -> int:
    lines = Path(STATUS).read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
