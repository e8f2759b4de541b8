"""A workloads process: what is put together, started and stopped."""

import asyncio
import contextlib
import logging
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import uvicorn
import uvloop

from llmop import statedir
from llmop.clock import SystemClock
from llmop.domain.errors import NeedsUser, Unavailable
from llmop.files import whole
from llmop.workloads import control, unusable
from llmop.workloads.app import make_app
from llmop.workloads.calls import Gateway
from llmop.workloads.database import Database
from llmop.workloads.engine import Engine
from llmop.workloads.known import Virtual
from llmop.workloads.outlook import Outlook
from llmop.workloads.owners import Owners
from llmop.workloads.retention import Retention
from llmop.workloads.retrieval.embedded import EmbeddedStores
from llmop.workloads.retrieval.index import Index
from llmop.workloads.retrieval.ingest import Ingest
from llmop.workloads.retrieval.pgvector import PgvectorStores
from llmop.workloads.retrieval.search import Search
from llmop.workloads.retrieval.stores import Stores
from llmop.workloads.service import Service
from llmop.workloads.settings import WorkloadsSettings
from llmop.workloads.shelf import Shelf

LOG = logging.getLogger(__name__)

DATABASE = "workloads.db"
_GRACE_S = 5  # for open answers: a batch is gone on with, and a bulk request can be made again
_KEEP_ALIVE_S = 90  # longer than a gateway keeps a connection that it does not use


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: WorkloadsSettings) -> None:
    """Runs until SIGTERM or SIGINT. Raises NeedsUser, OSError."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, stop)

    uvloop.run(main())


async def run(settings: WorkloadsSettings, stop: asyncio.Event) -> None:
    with statedir.claim(settings.directory, "workloads"):
        async with contextlib.AsyncExitStack() as stack:
            database = Database(settings.directory / DATABASE)
            stack.push_async_callback(database.close)
            stores = await _stores(settings)
            stack.push_async_callback(stores.close)
            rows = await stack.enter_async_context(Gateway(settings.gateway, settings.key, "bulk"))
            people = await stack.enter_async_context(Gateway(settings.gateway, settings.key, "default"))
            await _run(settings, database, stores, rows, people, stop)


async def _stores(settings: WorkloadsSettings) -> Stores:
    """A Postgres server that is away keeps no batch waiting: it is looked for again when a vector store is used. Raises NeedsUser."""
    if not settings.vectors:
        return await asyncio.to_thread(
            EmbeddedStores, settings.directory / "vectors.db", settings.vector_memory
        )
    stores = PgvectorStores(settings.vectors, await asyncio.to_thread(_installation, settings.directory))
    try:
        await stores.prepare()
    except Unavailable as error:
        LOG.error("%s", error)
    except BaseException:
        await stores.close()
        raise
    return stores


def _installation(directory: Path) -> str:
    """A name that nobody else has: the documents in Postgres belong to the files in this directory. Raises OSError."""
    path = directory / "installation"
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        name = SystemClock().suffix(24)
        whole.write(path, f"{name}\n".encode(), 0o600)
        return name


async def _run(
    settings: WorkloadsSettings,
    database: Database,
    stores: Stores,
    rows: Gateway,
    people: Gateway,
    stop: asyncio.Event,
) -> None:
    shelf, clock = Shelf(settings.directory / "files"), SystemClock()
    engine = Engine(database, shelf, rows, clock, settings.concurrency, settings.keep_s)
    try:
        await engine.clear_up()
    except sqlite3.Error as error:
        raise unusable.sentence(settings.directory / DATABASE, error) from error
    ingest = Ingest(stores, database, shelf, rows, settings.quota)
    virtual = Virtual(settings.directory)
    virtual.load()
    owners = Owners(settings.directory / "owners.json", clock)
    owners.load()
    heard: set[str] = set()
    retention = Retention(
        owners,
        database,
        stores,
        virtual,
        heard,
        engine.tidy_soon,
        settings.in_file,
        settings.keep_gone_s,
    )
    service = Service(
        database=database,
        shelf=shelf,
        engine=engine,
        caller=rows,
        people=people,
        outlook=Outlook(people.look, asyncio.get_running_loop().time),
        virtual=virtual,
        stores=stores,
        ingest=ingest,
        search=Search(people, Index(stores)),
        quota=settings.quota,
        clock=clock,
    )
    config = uvicorn.Config(
        make_app(service),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    with _listen(settings) as sock:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(engine.run())
            reading = group.create_task(ingest.run())
            watch = group.create_task(control.watch(settings.controller, virtual, owners, heard))
            removing = group.create_task(retention.run())
            ending = group.create_task(_stop(server, stop))
            await server.serve(sockets=[sock])
            for task in (work, reading, watch, removing, ending):
                task.cancel()


async def _stop(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


@contextlib.contextmanager
def _listen(settings: WorkloadsSettings) -> Iterator[socket.socket]:
    """The directory is the lock of this door. The claim on the state directory says that nobody else listens here."""
    path = settings.socket
    statedir.ensure(path.parent)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(str(path))
        except OSError as error:
            raise NeedsUser("CannotListen", f"{path}: {error.strerror or error}") from error
        sock.listen(2048)
        try:
            yield sock
        finally:
            path.unlink(missing_ok=True)
