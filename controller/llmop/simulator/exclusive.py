"""What a TGI process needs for itself on a node: ports and a socket path that two replicas must not share.

The simulator takes them as TGI does, so that a collision shows: `--prometheus-port` is bound for a moment at
the start, `--master-port` is held as by torch.distributed, `<--shard-uds-path>-0` is the shard's socket, which
TGI removes and makes again if it exists (launcher/src/main.rs).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .options import Options


class CannotStart(Exception):
    """Something the simulator needs is taken or not allowed. The message names it and the fix."""


@contextmanager
def exclusive(options: Options) -> Iterator[None]:
    """Hold the ports and the socket while inside. Raises CannotStart."""
    with ExitStack() as stack:
        if options.prometheus_port is not None:
            _listen("--prometheus-port", options.hostname, options.prometheus_port).close()
        if options.master_port is not None:
            stack.enter_context(_listen("--master-port", options.hostname, options.master_port))
        if options.shard_uds_path is not None:
            path = Path(f"{options.shard_uds_path}-0")
            stack.enter_context(_listen_unix(path))
            stack.callback(path.unlink, missing_ok=True)
        yield


def _listen(flag: str, hostname: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((hostname, port))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise CannotStart(f"{flag} {port}: {error.strerror}; give each engine on a node its own") from error
    return listener


def _listen_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise CannotStart(f"--shard-uds-path: cannot make {path}: {reason}") from error
    return listener
