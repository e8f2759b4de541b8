"""The sockets a gateway listens on."""

import socket
import stat
from pathlib import Path

from llmop.domain.errors import NeedsUser
from llmop.gateway.settings import SocketPath, TcpAddress

_BACKLOG = 2048


def listen(address: TcpAddress | SocketPath, workers: int = 1) -> list[socket.socket]:
    """One socket per worker. The kernel spreads connections over them by their addresses; workers share the socket of a path.

    Raises NeedsUser for an address that cannot be had.
    """
    try:
        if isinstance(address, SocketPath):
            _check_private(address.path)
            return [_path_socket(address.path)]
        if workers == 1:
            return [_tcp_socket(address, shared=False)]
        # Tried alone first: as one of several it would quietly join a gateway that is already there.
        with _tcp_socket(address, shared=False) as probe:
            port = probe.getsockname()[1]
        address = TcpAddress(host=address.host, port=port)
        return [_tcp_socket(address, shared=True) for _ in range(workers)]
    except OSError as error:
        shown = address.path if isinstance(address, SocketPath) else f"{address.host}:{address.port}"
        raise NeedsUser(
            "CannotListen", f"listen {shown}: {error.strerror}; name another address with --listen"
        ) from error


def name_of(address: TcpAddress | SocketPath, sock: socket.socket, *, tls: bool) -> str:
    """`http://host:port`, `https://host:port` or `unix:/path`, with the port in force."""
    if isinstance(address, SocketPath):
        return f"unix:{address.path}"
    host, port = sock.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _tcp_socket(address: TcpAddress, *, shared: bool) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(place)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _path_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _check_private(path: Path) -> None:
    """The directory is the lock of this door. Removes a socket that nobody answers."""
    mode = path.parent.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise NeedsUser(
            "InsecureListener",
            f"listen unix:{path}: this door asks for no key, so its directory must be private: chmod 700 {path.parent}",
        )
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
