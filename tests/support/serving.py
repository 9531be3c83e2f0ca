"""The server of docs/serving.md in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running(place: Path, port: int) -> Iterator[str]:
    """Run `serve.py` of a folder on the loopback until the block ends; gives the address of its API."""
    command = [sys.executable, "-m", "uvicorn", "serve:app", "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(command, cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        for _ in range(600):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
        process.terminate()


def free_port() -> int:
    """Return a port of the loopback that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
