"""Connections to a port of this machine that go on to another one, bytes as they are. Loopback only."""

import contextlib
import socket
import threading
from collections.abc import Callable

from llmop.cli.errors import CliError, ExitCode

_CHUNK = 64 * 1024
_CONNECT_S = 5.0
_MOST = 100  # connections at a time


def check(name: str, host: str, port: int) -> None:
    """Raises CliError when nothing can be reached there from this machine."""
    try:
        _connect(host, port).close()
    except OSError as error:
        raise CliError(
            f"error: {name} listens at {host}:{port}, which cannot be reached from this machine: {error.strerror or error}",
            ExitCode.NETWORK,
        ) from error


def listen(port: int) -> socket.socket:
    """A listener on 127.0.0.1. Raises CliError when the port is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise CliError(
            f"error: cannot listen on 127.0.0.1:{port}: {error.strerror}", ExitCode.CONFIG
        ) from error


def serve(listener: socket.socket, host: str, port: int, say: Callable[[str], None]) -> None:
    """For ever. A connection that cannot go on is closed, and `say` gets the reason."""
    free = threading.BoundedSemaphore(_MOST)
    while True:
        free.acquire()
        client, _ = listener.accept()
        threading.Thread(target=_pass_on, args=(client, host, port, say, free), daemon=True).start()


def _pass_on(
    client: socket.socket,
    host: str,
    port: int,
    say: Callable[[str], None],
    free: threading.BoundedSemaphore,
) -> None:
    try:
        with client:
            try:
                server = _connect(host, port)
            except OSError as error:
                say(f"error: {host}:{port}: {error.strerror or error}")
                return
            with server:
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()
    finally:
        free.release()


def _connect(host: str, port: int) -> socket.socket:
    made = socket.create_connection((host, port), timeout=_CONNECT_S)
    made.settimeout(None)
    return made


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Until one of them ends; then the other one hears of that."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
