"""Taking requests in this process: the worker is put together, uvicorn listens and shuts down."""

import asyncio
import contextlib
import functools
import gc
import logging
import math
import random
import resource
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import Config

from llmop.clock import Clock
from llmop.domain.errors import NeedsUser
from llmop.gateway.app import Presence, make_app
from llmop.gateway.desk import Desk
from llmop.gateway.downstream import GatewayProtocol
from llmop.gateway.faults import Faults
from llmop.gateway.fleet import Fleet
from llmop.gateway.forward import Forward
from llmop.gateway.keys import KeyRing
from llmop.gateway.limiter import Limiter
from llmop.gateway.metrics import Counts
from llmop.gateway.operations import Overviews, Source
from llmop.gateway.settings import GatewaySettings
from llmop.gateway.table import ReceivedTable
from llmop.gateway.tally import Accounts
from llmop.gateway.worker import Worker

LOG = logging.getLogger(__name__)

_SWEEP_PERIOD = 1.0
_LAST_RESORT_S = 2  # uvicorn's own bound comes that much after ours, which knows what an open answer is


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


def prepare_process() -> None:
    """For a process that does nothing else. What was imported stays; looking through it for garbage again and again would stop every
    stream for some 10 ms. Every open stream takes two descriptors.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    raise_file_limit()


def raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_worker(
    settings: GatewaySettings,
    clock: Clock,
    counts: Counts,
    fleet: Fleet,
    desk: Desk,
    usage_folder: Path | None,
    limiter: Limiter,
) -> Worker:
    """In a running loop. Usage is written down in `usage_folder`, if there is one. Raises NeedsUser for a keys file that cannot be used."""
    loop = asyncio.get_running_loop()
    keys = KeyRing(settings.keys_file, clock.now())

    def grant(received: ReceivedTable) -> None:
        keys.grant(received.table.keys, clock.now())
        limiter.grant(received.table.keys, loop.time())

    fleet.followers.append(grant)
    return Worker(
        loop=loop,
        clock=clock,
        random=random.random,
        fleet=fleet,
        desk=desk,
        keys=keys,
        limiter=limiter,
        accounts=Accounts.begin(usage_folder, clock.suffix(12)),
        counts=counts,
        faults=Faults(loop.time, counts),
        timeouts=settings.timeouts,
        body_limit=settings.body_limit,
        prefix=clock.suffix(8).encode(),
    )


async def take_requests(
    worker: Worker,
    settings: GatewaySettings,
    sock: socket.socket,
    *,
    presence: Presence,
    everybody: Callable[[], Awaitable[Counts]],
    overview: Source,
    beside: Callable[[], Coroutine[Any, Any, None]],
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """Until `stop` is set and the open answers are finished. `everybody` gives the counts of all processes, `overview` what operators look
    at; `beside` runs as long as requests are taken.
    """
    forward = Forward(settings.workloads, settings.timeouts.body_idle)
    config = Config(
        make_app(worker, presence, everybody, Overviews(overview, worker.loop.time).get, forward),
        http=functools.partial(GatewayProtocol, worker=worker),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=math.ceil(settings.timeouts.shutdown) + _LAST_RESORT_S,
    )
    server = _Server(config, ready)
    loop = worker.loop
    before = loop.get_exception_handler()
    loop.set_exception_handler(worker.faults.of_loop)
    try:
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(beside()),
                group.create_task(_sweep(worker)),
                group.create_task(_stop(server, worker, stop)),
            ]
            await server.serve(sockets=[sock])
            for helper in helpers:
                helper.cancel()
            _abort_all(worker)
    finally:
        loop.set_exception_handler(before)
        await forward.close()
        worker.fleet.close()


async def _stop(server: uvicorn.Server, worker: Worker, stop: asyncio.Event) -> None:
    await stop.wait()
    worker.desk.close()
    server.should_exit = True
    await asyncio.sleep(worker.timeouts.shutdown)
    open_answers = sum(each.is_answering for each in worker.connections)
    if open_answers:
        LOG.warning("answers are cut off: %d, %g s after the stop", open_answers, worker.timeouts.shutdown)
    _abort_all(worker)


def _abort_all(worker: Worker) -> None:
    for connection in list(worker.connections):
        connection.abort()


async def _sweep(worker: Worker) -> None:
    while True:
        await asyncio.sleep(_SWEEP_PERIOD)
        now = worker.loop.time()
        for connection in list(worker.connections):
            connection.sweep(now)
        with worker.faults.guard("what is due every second"):
            worker.limiter.keep_up(now)
            worker.fleet.close_old_connections(now - worker.timeouts.upstream_idle)
            try:
                worker.keys.refresh(worker.clock.now())
            except (NeedsUser, OSError) as error:
                LOG.error("keys stay as they were: %s", error)
