"""A Hub on the loopback, for the real client: repositories, commits, large files; and it can misbehave.

It speaks what the client calls for create, info, tree, preupload, LFS batch, upload, verify, commit, resolve; no Xet.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.hub_server.client import call, online
from tests.support.hub_server.faults import Fault
from tests.support.hub_server.server import Hub
from tests.support.hub_server.store import COMMIT, Repo

__all__ = ["COMMIT", "Fault", "Hub", "Repo", "call", "online", "serve", "start"]


@contextlib.contextmanager
def start() -> Iterator[Hub]:
    """Run an empty Hub."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()


@contextlib.contextmanager
def serve(files: Path, cut: str | None = None) -> Iterator[Hub]:
    """Serve the files of a directory as whatever repository is asked for.

    Args:
        files: the directory.
        cut: what is cut: "api" (the listing) closes without a word; a file comes by half, and by no more on resuming.
    """
    with start() as hub:
        hub.every = Repo("org/model", {path.name: path.read_bytes() for path in files.iterdir()}, COMMIT)
        if cut == "api":
            hub.faults.append(Fault("GET", "/api/", cut=True))
        elif cut:
            hub.faults.append(Fault("GET", cut, cut=True))
        yield hub
