"""The server of docs/serving.md in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 300  # seconds: a machine that reads every library from a cold disk beside other tests needs minutes


@contextmanager
def running(place: Path, port: int) -> Iterator[str]:
    """Run `serve.py` of a folder on the loopback until the block ends; gives the address of its API."""
    command = [sys.executable, "-m", "uvicorn", "serve:app", "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(command, cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        try:
            wait_until_it_answers(process, f"http://127.0.0.1:{port}/openapi.json")
            yield f"http://127.0.0.1:{port}/v1"
            assert process.poll() is None, f"the server ended by itself, with {process.returncode}"
        finally:
            process.terminate()


def wait_until_it_answers(process: subprocess.Popen, address: str) -> None:
    """A connection alone proves nothing: a port of the range for clients may be connected with itself."""
    stop = time.monotonic() + START_S
    while time.monotonic() < stop:
        assert process.poll() is None, f"the server ended before its first answer, with {process.returncode}"
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"no answer from {address} within {START_S} s")


def free_port() -> int:
    """Return a port of the loopback that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
