"""HTTP servers on loopback that stand for services out on the network, with the faults that those have."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import threading
import urllib.parse
from collections.abc import Iterator, Mapping


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    range: str
    authorization: str


@dataclasses.dataclass(kw_only=True, slots=True)
class Fault:
    """What happens to the bodies whose path holds `path`: after `after` bytes the connection is cut (`times` times), or waits until
    `go` is set. `reached` is set when it has happened."""

    path: str
    after: int
    times: int = 1
    go: threading.Event | None = None
    reached: threading.Event = dataclasses.field(default_factory=threading.Event)


class Answer(Exception):
    def __init__(self, code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        super().__init__(code)
        self.code = code
        self.headers = dict(headers or {})
        self.body = body


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed cut their connections; that is what they are for."""


class Service:
    """Subclasses answer by raising `Answer` in `answer`. Listens on 127.0.0.1 and, for redirects to another name, on localhost."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.is_down = False
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
        raise NotImplementedError

    def bodies(self, path: str) -> list[Asked]:
        """The requests for contents whose path holds `path`."""
        return [each for each in self.asked if each.method == "GET" and path in each.path]

    @contextlib.contextmanager
    def running(self) -> Iterator[Service]:
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve("GET")

            def do_HEAD(self) -> None:
                self._serve("HEAD")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Tests look at `asked`."""

            def _serve(self, method: str) -> None:
                url = urllib.parse.urlsplit(self.path)
                path = urllib.parse.unquote(url.path)
                asked = Asked(
                    method=method,
                    path=path,
                    range=self.headers.get("Range", ""),
                    authorization=self.headers.get("Authorization", ""),
                )
                service.asked.append(asked)
                try:
                    if service.is_down:
                        raise Answer(503)
                    service.answer(method, path, dict(urllib.parse.parse_qsl(url.query)), self.headers)
                    raise Answer(404)
                except Answer as answer:
                    with contextlib.suppress(OSError):
                        self._send(method, path, asked.range, answer)

            def _send(self, method: str, path: str, wanted: str, answer: Answer) -> None:
                body, code, headers = answer.body, answer.code, answer.headers
                if code == 200 and wanted.startswith("bytes="):
                    start = int(wanted.removeprefix("bytes=").split("-")[0])
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                    body, code = body[start:], 206
                self.send_response(code)
                headers.setdefault("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if method == "HEAD":
                    return
                fault = next((each for each in service.faults if each.path in path and each.times), None)
                if fault is None or len(body) <= fault.after:
                    self.wfile.write(body)
                    return
                fault.times -= 1
                self.wfile.write(body[: fault.after])
                self.wfile.flush()
                fault.reached.set()
                if fault.go is None:
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                fault.go.wait(60)
                self.wfile.write(body[fault.after :])

        server = _Server(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            for fault in self.faults:
                if fault.go is not None:
                    fault.go.set()
            server.shutdown()
            server.server_close()
            thread.join()
