"""A gateway process: what is put together, started and stopped."""

import asyncio
import contextlib
import functools
import gc
import logging
import random
import resource
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
import uvloop
from uvicorn.config import Config

from llmop.clock import Clock, SystemClock
from llmop.domain.errors import NeedsUser
from llmop.gateway.app import Presence, make_app
from llmop.gateway.downstream import GatewayProtocol
from llmop.gateway.endpoints import ControllerLine
from llmop.gateway.fleet import Fleet
from llmop.gateway.keys import KeyRing
from llmop.gateway.metrics import Counts
from llmop.gateway.settings import GatewaySettings, SocketPath, TcpAddress, check
from llmop.gateway.table import ReceivedTable
from llmop.gateway.table_file import TableFile
from llmop.gateway.worker import Worker

LOG = logging.getLogger(__name__)

_BACKLOG = 2048
_SWEEP_PERIOD = 1.0


class _Server(uvicorn.Server):
    """Signals are the caller's business: the server may be one of several things in a process."""

    def __init__(self, config: Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: GatewaySettings) -> None:
    """Runs a gateway until SIGTERM or SIGINT; a second one does not wait for open answers. Raises NeedsUser for bad settings."""

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(run(settings, stop=stop))

        def ask_to_end() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ask_to_end)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    _tame_garbage_collection()
    uvloop.run(main())


def _tame_garbage_collection() -> None:
    """What was imported stays; looking through it again and again would stop every stream for some 10 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def run(
    settings: GatewaySettings,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None] = lambda address: None,
    clock: Clock | None = None,
) -> None:
    """The same inside a running loop, until `stop` is set.

    `ready` is called once, with the address in force (`http://host:port`, or `unix:/path`), when requests are taken. Raises
    NeedsUser for bad settings, OSError for an address that cannot be had.
    """
    address = check(settings)
    clock = clock or SystemClock()
    loop = asyncio.get_running_loop()
    _raise_file_limit()
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    counts = Counts()
    fleet = Fleet(counts, loop)
    file = TableFile(settings.state_dir)
    _load_table(file, fleet)
    presence = Presence()
    worker = Worker(
        loop=loop,
        clock=clock,
        random=random.random,
        fleet=fleet,
        keys=KeyRing(settings.keys_file),
        counts=counts,
        timeouts=settings.timeouts,
        body_limit=settings.body_limit,
        prefix=clock.suffix(8).encode(),
    )
    if not len(worker.keys) and isinstance(address, TcpAddress):
        LOG.warning("no key in %s: every request will be refused until one is made", settings.keys_file)
    line = ControllerLine(
        settings.controller,
        settings.name,
        fleet,
        presence,
        clock,
        functools.partial(_save_table, file),
        worker.random,
    )
    sock = _listen(address)
    try:
        config = Config(
            make_app(worker, presence),
            http=functools.partial(GatewayProtocol, worker=worker),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            timeout_graceful_shutdown=int(settings.timeouts.shutdown),
        )
        name = _name(address, sock, config.is_ssl)
        server = _Server(config, functools.partial(ready, name))
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(line.run()),
                group.create_task(_sweep(worker)),
                group.create_task(_stop(server, stop)),
            ]
            await server.serve(sockets=[sock])
            for helper in helpers:
                helper.cancel()
            for connection in list(worker.connections):
                connection.abort()
    finally:
        sock.close()
        if isinstance(address, SocketPath):
            address.path.unlink(missing_ok=True)
        fleet.close()


async def _stop(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


async def _sweep(worker: Worker) -> None:
    while True:
        await asyncio.sleep(_SWEEP_PERIOD)
        now = worker.loop.time()
        for connection in list(worker.connections):
            connection.sweep(now)
        worker.fleet.close_old_connections(now - worker.timeouts.upstream_idle)
        try:
            worker.keys.reload()
        except (NeedsUser, OSError) as error:
            LOG.error("keys stay as they were: %s", error)


def _load_table(file: TableFile, fleet: Fleet) -> None:
    try:
        received = file.load()
    except (ValueError, OSError) as error:
        LOG.error("the last endpoint table cannot be read, waiting for the controller's: %s", error)
        return
    if received is not None:
        fleet.apply(received)
        LOG.info("serving from the last endpoint table, version %d", received.table.version)


async def _save_table(file: TableFile, received: ReceivedTable) -> None:
    try:
        await asyncio.to_thread(file.save, received)
    except OSError as error:
        LOG.error("the endpoint table could not be written to disk: %s", error)


def _listen(address: TcpAddress | SocketPath) -> socket.socket:
    if isinstance(address, TcpAddress):
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        _check_private(address.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place = str(address.path)  # type: ignore[assignment]  # of the other family
    try:
        sock.bind(place)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        shown = address.path if isinstance(address, SocketPath) else f"{address.host}:{address.port}"
        raise NeedsUser(
            "CannotListen", f"listen {shown}: {error.strerror}; name another address with --listen"
        ) from error
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


def _name(address: TcpAddress | SocketPath, sock: socket.socket, tls: bool) -> str:
    if isinstance(address, SocketPath):
        return f"unix:{address.path}"
    host, port = sock.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _raise_file_limit() -> None:
    """Every open stream takes two descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
