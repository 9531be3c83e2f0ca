"""The HTTP side: reading a request, applying a fault, sending an answer."""

import http.server
import json
import sys
import time
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_server import routes
from tests.support.hub_server.faults import NONE, Fault
from tests.support.hub_server.store import Repo

sleep = time.sleep  # the client's is replaced in tests


class Hub(http.server.ThreadingHTTPServer):
    """`repos` by id, `every` for whatever id is asked for, `objects` uploaded by sha256, `tokens` that may write.

    `asked` is every path asked for, `requests` every (method, path without its query), `faults` what goes wrong.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.every: Repo | None = None
        self.objects: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.asked: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.card_errors: list[dict[str, str]] = []  # what is wrong with any README.md

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def cdn(self) -> str:
        """Another host, as the Hub's: the client sends it no token."""
        return f"http://localhost:{self.server_port}/cdn"

    def handle_error(self, request, client_address) -> None:
        """A client that went away is nothing to print; a mistake of ours is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self) -> None:
        hub, parts = self.server, urlsplit(self.path)
        path = unquote(parts.path)
        hub.asked.append(self.path)
        hub.requests.append((self.command, path))
        fault = next((fault for fault in hub.faults if fault.applies(self.command, path)), NONE)
        if fault.do:
            fault.do()
        if fault.cut and self.command in ("POST", "PUT"):
            self._read(half=True)
            return  # and the connection is closed without a word
        body = self._read()
        if fault.change and self.command == "PUT":
            body = fault.change(body)
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if fault.status:
            answer = routes.refuse(fault.status, fault.message, **fault.headers)
        else:
            answer = routes.answer(hub, self.command, path, parse_qs(parts.query), body, token)
        if not fault.lost:
            self._send(*answer, fault)

    def _read(self, half: bool = False) -> bytes:
        if self.headers["Transfer-Encoding"] == "chunked":
            return b"".join(iter(self._chunk, b""))
        length = int(self.headers["Content-Length"] or 0)
        return self.rfile.read(length // 2 if half else length)

    def _chunk(self) -> bytes:
        body = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return body

    def _send(self, status: int, headers: dict[str, str], content: bytes | dict | list, fault: Fault) -> None:
        if fault.cut and "/api/" in self.path or fault.cut and "Range" in self.headers:
            return  # closed without a word; and a client that resumes gets nothing more
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        if fault.change and self.command == "GET":
            body = fault.change(body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._write(body[: len(body) // 2] if fault.cut else body, fault.pause)

    def _write(self, body: bytes, pause: float) -> None:
        step = max(len(body) // 4, 1) if pause else max(len(body), 1)
        for start in range(0, len(body), step):
            sleep(pause)
            self.wfile.write(body[start : start + step])
            self.wfile.flush()
