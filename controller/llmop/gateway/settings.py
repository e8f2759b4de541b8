"""What a gateway process is told, and the limits it keeps."""

import dataclasses
import ipaddress
from pathlib import Path
from typing import Any

from llmop.domain.errors import NeedsUser

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 32 * 1024 * 1024
MOST_WORKERS = 64


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TcpAddress:
    host: str
    port: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SocketPath:
    """A Unix socket: the only door that asks for no key."""

    path: Path


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Seconds. There is no limit on the total time of a request."""

    head: float = 15.0  # from the first byte of a request (or from connecting) to the end of its head
    body_idle: float = 30.0  # between two pieces of a request body
    keep_alive: float = 75.0  # between two requests of a client's connection
    linger: float = 2.0  # for a client to read a refusal before its connection is closed
    connect: float = 5.0  # to an engine
    upstream_idle: float = 60.0  # for an unused connection to an engine
    stream_idle: float = 300.0  # between two pieces of an answer, and for a client that does not read
    shutdown: float = 30.0  # for open answers when the gateway is told to stop


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GatewaySettings:
    """`controller` is the gRPC target of the control API (a Unix socket, `unix:///path`); `listen` is `host:port`, `[v6]:port` or
    `unix:/path`; `body_limit` is in bytes; `name` is unique among the gateways of an installation;
    `workers` is the number of processes that take requests; `workloads` is the socket of `llmop workloads`, None
    where there is none.
    """

    controller: str
    listen: str
    keys_file: Path
    state_dir: Path
    workloads: Path | None = None
    name: str = "gateway"
    behind_proxy: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    body_limit: int = BODY_LIMIT
    workers: int = 1
    timeouts: Timeouts = Timeouts()


def parse_listen(text: str) -> TcpAddress | SocketPath:
    """Raises NeedsUser naming the value and what it should look like."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path[2:] if path.startswith("///") else path
        if not path.startswith("/"):
            raise NeedsUser("InvalidSetting", f'listen "{text}": write unix:/absolute/path')
        return SocketPath(path=Path(path))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise NeedsUser("InvalidSetting", f'listen "{text}": write an IPv6 address as [{host}]:{port}')
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise NeedsUser(
            "InvalidSetting", f'listen "{text}": write host:port, [v6]:port or unix:/absolute/path'
        )
    return TcpAddress(host=host, port=int(port))


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(settings: GatewaySettings) -> TcpAddress | SocketPath:
    """Where to listen. Raises NeedsUser for settings under which keys or prompts would travel in the open."""
    if not settings.controller.startswith("unix:"):
        raise NeedsUser(
            "InvalidSetting",
            f'controller "{settings.controller}": this version reaches the controller through its Unix socket only; '
            "write unix:///path/of/the/socket",
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise NeedsUser("InvalidSetting", "--tls-cert and --tls-key belong together: give both or none")
    for option, path in (("--tls-cert", settings.tls_cert), ("--tls-key", settings.tls_key)):
        if path is not None and not path.is_file():
            raise NeedsUser("InvalidSetting", f'{option} "{path}": no such file')
    if settings.body_limit <= 0:
        raise NeedsUser(
            "InvalidSetting", f"body limit {settings.body_limit}: give a positive number of bytes"
        )
    if not 1 <= settings.workers <= MOST_WORKERS:
        raise NeedsUser(
            "InvalidSetting", f"workers {settings.workers}: give a number from 1 to {MOST_WORKERS}"
        )
    address = parse_listen(settings.listen)
    if (
        isinstance(address, TcpAddress)
        and not is_loopback(address.host)
        and settings.tls_cert is None
        and not settings.behind_proxy
    ):
        raise NeedsUser(
            "InsecureListener",
            f'listen "{settings.listen}" is reachable from other machines, and keys and prompts would travel unencrypted: '
            "give --tls-cert and --tls-key, or --behind-proxy if something in front of it speaks TLS, "
            "or listen on 127.0.0.1",
        )
    return address


def to_values(settings: GatewaySettings) -> dict[str, Any]:
    """For another process of the same gateway: nothing but texts and numbers."""
    values = dataclasses.asdict(settings)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def from_values(values: dict[str, Any]) -> GatewaySettings:
    paths = {
        name: None if values[name] is None else Path(values[name])
        for name in ("keys_file", "state_dir", "workloads", "tls_cert", "tls_key")
    }
    return GatewaySettings(**(values | paths | {"timeouts": Timeouts(**values["timeouts"])}))
