"""A Hub on the loopback: serves one directory as one repository, and can cut a connection midway."""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

COMMIT = "c" * 40


class Hub(http.server.ThreadingHTTPServer):
    """`cut` names what is cut: None, "api" (the listing) or a file; `asked` is every path asked for."""

    daemon_threads = True

    def __init__(self, files: Path, cut: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.cut, self.asked = files, cut, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/"):
            if self.server.cut == "api":
                return  # the connection is closed without a word
            return self._send(json.dumps(self._tree() if "/tree/" in path else self._info()).encode(), with_body)
        name = path.split(f"/resolve/{COMMIT}/", 1)[1]
        self._send((self.server.files / name).read_bytes(), with_body, self.server.cut == name)

    def _send(self, body: bytes, with_body: bool, cut: bool = False) -> None:
        if cut and with_body and "Range" in self.headers:
            return  # a client that resumes gets nothing more
        self.send_response(200)
        for name, value in (("Content-Length", len(body)), ("ETag", hashlib.sha1(body).hexdigest())):
            self.send_header(name, str(value))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if cut else body)

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.server.files.iterdir())

    def _info(self) -> dict:
        siblings = [{"rfilename": name} for name in self._names()]
        return {"_id": "0", "id": "org/model", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}

    def _tree(self) -> list[dict]:
        sizes = {name: (self.server.files / name).stat().st_size for name in self._names()}
        return [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()]


@contextlib.contextmanager
def serve(files: Path, cut: str | None = None) -> Iterator[Hub]:
    """Serve the files of a directory as whatever repository is asked for."""
    with Hub(files, cut) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()


def call(statement: str, url: str, offline: bool = False) -> str:
    """Run a statement in a process of its own, as the client reads its settings when imported.

    Returns:
        What was printed; for a ValueError its type and message.
    """
    script = (
        "import time, vladva_clip, vladva_clip.sources\n"
        "time.sleep = lambda seconds: None\n"  # a client that tries again does so at once
        f"try:\n    {statement}\nexcept ValueError as error:\n    print(type(error).__name__, error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_HUB_OFFLINE": str(int(offline)), "HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=90)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
