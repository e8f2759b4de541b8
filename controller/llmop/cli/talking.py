"""Requests to a gateway: one connection each, answers as text or as a stream of events. The standard library is enough."""

import dataclasses
import http.client
import json
import secrets
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from llmop.cli import printing
from llmop.cli.errors import CliError, ConfigError, ExitCode, UsageError
from llmop.cli.session import Session

_CODES = {
    400: ExitCode.BAD_REQUEST,
    401: ExitCode.UNAUTHENTICATED,
    403: ExitCode.FORBIDDEN,
    404: ExitCode.NOT_FOUND,
    408: ExitCode.TIMEOUT,
    409: ExitCode.CONFLICT,
    413: ExitCode.TOO_LARGE,
    422: ExitCode.BAD_REQUEST,
    429: ExitCode.TOO_MANY_REQUESTS,
    502: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.TIMEOUT,
}
_ERROR_LIMIT = 64 * 1024  # bytes of an error's body that are read
_PIECE = 256 * 1024  # bytes of a file at once


class GatewayError(CliError):
    """What the gateway, or the engine behind it, answered instead. `status` is that of HTTP, 0 inside a stream."""

    def __init__(self, message: str, code: ExitCode, status: int = 0) -> None:
        super().__init__(message, code)
        self.status = status


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """Where it is (http://, https:// or unix:/path), the key it asks for ("" = none), and how long it may be silent, in seconds."""

    url: str
    key: str
    timeout_s: float

    def get(self, path: str) -> bytes:
        """The body of a good answer. Raises GatewayError."""
        with _Call(self, "GET", path) as answer:
            return answer.read()

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """JSON in, a JSON object out. Raises GatewayError."""
        with _Call(self, method, path, None if body is None else json.dumps(body).encode()) as answer:
            data = _json(answer.read())
        if data is None:
            raise GatewayError(f"error: {self.url} sent an answer that is not JSON", ExitCode.INTERNAL)
        return data

    def upload(self, path: str, fields: Mapping[str, str], filename: str, file: BinaryIO) -> dict[str, Any]:
        """A file as the field `file` of a form, piece by piece; a JSON object comes back. Raises GatewayError."""
        boundary = f"llmctl-{secrets.token_hex(16)}"
        content_type = f"multipart/form-data; boundary={boundary}"
        with _Call(self, "POST", path, _form(boundary, fields, filename, file), content_type) as answer:
            return _json(answer.read()) or {}

    def pieces(self, path: str) -> Iterator[bytes]:
        """A large answer, piece by piece. Raises GatewayError, also where it ends too early."""
        with _Call(self, "GET", path) as answer:
            left = answer.length
            while piece := answer.read(_PIECE):
                if left is not None:
                    left -= len(piece)
                yield piece
            if left:
                raise GatewayError(f"error: the answer of {self.url} is incomplete", ExitCode.NETWORK)

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a stream, as JSON, until its end. Raises GatewayError for an answer, or an event, that is an error."""
        with _Call(self, "POST", path, json.dumps(body).encode()) as answer:
            for line in answer:
                text = line.strip()
                if not text.startswith(b"data:"):
                    continue
                data = text.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                event = _json(data)
                if event is None:
                    raise GatewayError(f"error: {self.url} sent an event that is not JSON", ExitCode.INTERNAL)
                if event.get("error"):
                    raise GatewayError(f"error: {_words(event)}", ExitCode.INTERNAL)
                yield event

    def models(self) -> list[str]:
        """Names of the models that it serves now."""
        data = (_json(self.get("/v1/models")) or {}).get("data")
        return (
            [str(each.get("id")) for each in data if isinstance(each, dict)] if isinstance(data, list) else []
        )


def gateway(
    session: Session, url: str | None, key_file: str | None, timeout_s: float, *, flag: str = "--gateway"
) -> Gateway:
    """That of the flags (`flag` gave `url`), else that of the context. Raises ConfigError when there is none, or its key cannot be read."""
    found = session.find_context() if url is None or key_file is None else None
    if url is None:
        url = found.gateway if found is not None else ""
        if not url:
            raise ConfigError(
                'no gateway is known: start one with "llmop up", or give --gateway http://HOST:PORT'
            )
    if not _is_address(url):
        raise UsageError(f'{flag} "{url}": write http://HOST:PORT, https://HOST or unix:/path')
    if key_file is None:
        # A key belongs to the gateway of its context: it is not sent anywhere else.
        key_file = found.key_file if found is not None and found.gateway == url else ""
    return Gateway(url=url.rstrip("/"), key=_key(key_file), timeout_s=timeout_s)


def _is_address(url: str) -> bool:
    if url.startswith("unix:/"):
        return True
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")
        _ = parts.port  # raises for one that is none
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and host != ""


def _key(file: str) -> str:
    if not file:
        return ""
    try:
        text = Path(file).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the key cannot be read: {error}") from error
    if not text or "\n" in text or not text.isascii():
        raise ConfigError(f"{file}: must hold a key alone, on one line")
    return text


def model(found: Gateway, wanted: str | None) -> str:
    """`wanted`, else the only model that there is. Raises UsageError."""
    if wanted:
        return wanted
    models = found.models()
    if len(models) == 1:
        return models[0]
    if not models:
        raise CliError(
            f"error: {found.url} serves no model now: llmctl get md shows why, where it is a gateway; or say which with -m",
            ExitCode.UNAVAILABLE,
        )
    raise UsageError(f"say which model with -m: {', '.join(models)}")


def under(name: str, path: str) -> str:
    """The path that reaches model `name` whatever the body says."""
    return f"/models/{quote(name, safe='')}{path}"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which is how a gateway listens for its own account alone."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Call:
    """One request; its answer inside `with`."""

    def __init__(
        self,
        found: Gateway,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        content_type: str = "application/json",
    ) -> None:
        self._gateway = found
        self._method = method
        self._body = body
        self._content_type = content_type
        parts = urlsplit(found.url)
        prefix = "" if found.url.startswith("unix:") else parts.path
        self._target = prefix + path
        self._connection = _connection(found, parts)
        self._answer: http.client.HTTPResponse | None = None

    def __enter__(self) -> http.client.HTTPResponse:
        headers = {"Accept": "text/event-stream, application/json"}
        if self._body is not None:
            headers["Content-Type"] = self._content_type
        if self._gateway.key:
            headers["Authorization"] = f"Bearer {self._gateway.key}"
        try:
            self._connection.request(self._method, self._target, body=self._body, headers=headers)
            answer = self._answer = self._connection.getresponse()
            if answer.status >= 300:
                raise _refused(answer)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return answer

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._answer is not None:
            self._answer.close()  # it keeps the socket open by itself
        self._connection.close()
        url = self._gateway.url
        if isinstance(error, TimeoutError):
            raise GatewayError(
                f"error: {url} was silent for {self._gateway.timeout_s:g}s; --timeout allows more",
                ExitCode.TIMEOUT,
            ) from error
        if isinstance(error, OSError | http.client.HTTPException):
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise GatewayError(
                f"error: the gateway {url} cannot be reached: {words}", ExitCode.NETWORK
            ) from error


def _connection(found: Gateway, parts: Any) -> http.client.HTTPConnection:
    if found.url.startswith("unix:"):
        return _UnixConnection(found.url.removeprefix("unix:"), found.timeout_s)
    if parts.scheme == "https":
        import ssl

        context = ssl.create_default_context()  # SSL_CERT_FILE names further authorities
        return http.client.HTTPSConnection(parts.netloc, timeout=found.timeout_s, context=context)
    return http.client.HTTPConnection(parts.netloc, timeout=found.timeout_s)


def _form(boundary: str, fields: Mapping[str, str], filename: str, file: BinaryIO) -> Iterator[bytes]:
    for name, value in fields.items():
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    quoted = quote(filename, safe=" ()[]+,@")  # no quotes and no line ends in a header
    yield (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    while piece := file.read(_PIECE):
        yield piece
    yield f"\r\n--{boundary}--\r\n".encode()


def _refused(answer: http.client.HTTPResponse) -> GatewayError:
    body = answer.read(_ERROR_LIMIT)
    data = _json(body)
    words = _words(data) if data else body.decode("utf-8", "replace").strip()[:300] or answer.reason
    return GatewayError(
        f"Error from gateway ({answer.status}): {words}", code_of(answer.status), answer.status
    )


def code_of(status: int) -> ExitCode:
    """The exit code for a status of HTTP that is an error."""
    return _CODES.get(status, ExitCode.INTERNAL if status >= 500 else ExitCode.BAD_REQUEST)


def _words(data: Mapping[str, Any]) -> str:
    """The sentence in an error of either dialect."""
    error = data.get("error")
    if isinstance(error, dict):
        error = error.get("message")
    return str(error or data.get("message") or json.dumps(data))


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(text)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


class Speaker:
    """Writes what a model says as it comes. On a terminal its control characters stay away: models repeat what they have read."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._last = "\n"

    def say(self, text: str) -> None:
        text = printing.multi_line(text) if self._is_terminal else text
        if text:
            print(text, end="", flush=True)
            self._last = text[-1]

    def end(self) -> None:
        """The end of an answer is the end of a line."""
        if self._last != "\n":
            print(flush=True)
            self._last = "\n"


def stdin_text() -> str:
    """All of stdin. Raises ConfigError for what is not text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"<stdin>: not UTF-8 text: {error.reason} at byte {error.start}") from error


def address_options(command: Any) -> Any:
    """--gateway, --key-file, -m and --timeout."""
    import click

    return gateway_options(
        click.option(
            "-m", "--model", "wanted", metavar="NAME", help="Which model; default: the only one there is."
        )(command)
    )


def gateway_options(command: Any) -> Any:
    """--gateway, --key-file and --timeout."""
    import click

    from llmop.cli.session import Duration

    for option in (
        click.option(
            "--timeout",
            type=Duration(),
            default="5m",
            metavar="DURATION",
            help="How long the gateway may be silent, 5m by default.",
        ),
        click.option("--key-file", metavar="FILE", help="File with the key; default: the context's."),
        click.option(
            "--gateway", "url", metavar="URL", help="Address of the gateway; default: the context's."
        ),
    ):
        command = option(command)
    return command
