"""A gateway: what is put together, started and stopped. With one worker it is one process, with more a parent and its workers."""

import asyncio
import contextlib
import functools
import logging
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable

import uvloop

from llmop.clock import Clock, SystemClock
from llmop.gateway import serving
from llmop.gateway.app import Presence
from llmop.gateway.crew import Crew
from llmop.gateway.desk import OwnDesk
from llmop.gateway.endpoints import ControllerLine, Tables
from llmop.gateway.fleet import Fleet
from llmop.gateway.keys import KeyRing
from llmop.gateway.limiter import Limiter
from llmop.gateway.listener import listen, name_of
from llmop.gateway.metrics import Counts
from llmop.gateway.settings import GatewaySettings, SocketPath, TcpAddress, check
from llmop.gateway.spool import Spool
from llmop.gateway.table import ReceivedTable
from llmop.gateway.table_file import TableFile

LOG = logging.getLogger(__name__)


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

    serving.prepare_process()
    uvloop.run(main())


async def run(
    settings: GatewaySettings,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None] = lambda address: None,
    clock: Clock | None = None,
) -> None:
    """The same inside a running loop, until `stop` is set.

    `ready` is called once, with the address in force (`http://host:port`, or `unix:/path`), when requests are taken. Raises
    NeedsUser for bad settings and for an address that cannot be had.
    """
    address = check(settings)
    clock = clock or SystemClock()
    serving.raise_file_limit()
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not len(KeyRing(settings.keys_file, clock.now())) and isinstance(address, TcpAddress):
        LOG.warning(
            "no key in %s: every request will be refused until one is made there or granted by the controller",
            settings.keys_file,
        )
    sockets = listen(address, settings.workers)
    name = name_of(address, sockets[0], tls=settings.tls_cert is not None)
    try:
        if settings.workers == 1:
            await _run_alone(settings, clock, sockets, stop, functools.partial(ready, name))
        else:
            await _run_crew(settings, clock, sockets, stop, functools.partial(ready, name))
    finally:
        for sock in sockets:
            sock.close()
        if isinstance(address, SocketPath):
            address.path.unlink(missing_ok=True)


async def _run_alone(
    settings: GatewaySettings,
    clock: Clock,
    sockets: list[socket.socket],
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    loop, hurry, numbers, presence = asyncio.get_running_loop(), asyncio.Event(), Counts(), Presence()
    fleet = Fleet(numbers, loop, workloads=settings.workloads)
    desk = OwnDesk(numbers, fleet, loop, hurry)
    spool = _spool(settings, clock)
    usage_folder = spool.folder if spool is not None else None
    worker = serving.make_worker(settings, clock, numbers, fleet, desk, usage_folder, Limiter())
    line = _line(settings, desk, presence, clock, hurry, spool, worker.accounts.name)

    async def counts() -> Counts:
        return numbers

    async with _accounting(line, spool):
        await serving.take_requests(
            worker,
            settings,
            sockets[0],
            presence=presence,
            everybody=counts,
            overview=line.overview,
            beside=line.run,
            stop=stop,
            ready=ready,
        )


async def _run_crew(
    settings: GatewaySettings,
    clock: Clock,
    sockets: list[socket.socket],
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    presence, hurry = Presence(), asyncio.Event()
    spool = _spool(settings, clock)
    crew = Crew(settings, sockets, presence, hurry, spool.folder if spool is not None else None)
    line = _line(settings, crew, presence, clock, hurry, spool, "")
    async with _accounting(line, spool):
        await crew.run(overview=line.overview, beside=line.run, stop=stop, ready=ready)


def _spool(settings: GatewaySettings, clock: Clock) -> Spool | None:
    try:
        return Spool(settings.state_dir, clock)
    except (ValueError, OSError) as error:
        LOG.error("what clients use is not written down: %s", error)
        return None


@contextlib.asynccontextmanager
async def _accounting(line: ControllerLine, spool: Spool | None) -> AsyncIterator[None]:
    """At the end the controller is told what was used last."""
    try:
        yield
        await line.last_words()
    finally:
        if spool is not None:
            spool.close()


def _line(
    settings: GatewaySettings,
    tables: Tables,
    presence: Presence,
    clock: Clock,
    hurry: asyncio.Event,
    spool: Spool | None,
    own_tally: str,
) -> ControllerLine:
    """With the last good table already in force."""
    file = TableFile(settings.state_dir)
    _load_table(file, tables)
    save = functools.partial(_save_table, file)
    return ControllerLine(
        settings.controller,
        settings.name,
        tables,
        presence,
        clock,
        save,
        random.random,
        hurry,
        spool,
        own_tally,
    )


def _load_table(file: TableFile, tables: Tables) -> None:
    try:
        received = file.load()
    except (ValueError, OSError) as error:
        LOG.error("the last endpoint table cannot be read, waiting for the controller's: %s", error)
        return
    if received is not None:
        tables.apply(received)
        LOG.info("serving from the last endpoint table, version %d", received.table.version)


async def _save_table(file: TableFile, received: ReceivedTable) -> None:
    try:
        await asyncio.to_thread(file.save, received)
    except OSError as error:
        LOG.error("the endpoint table could not be written to disk: %s", error)
