"""The composition root of the controller: what is put together, started, run periodically and stopped."""

import asyncio
import contextlib
import dataclasses
import datetime
import errno
import os
import random
import resource
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

import llmop.agent
import llmop.simulator
from llmop import statedir
from llmop.admin import office
from llmop.artifacts.runner import ProcessRunner
from llmop.channel import certificates, desk, inbox, listener
from llmop.clock import Clock, SystemClock
from llmop.cluster import driver, file_threads
from llmop.cluster.local import LocalCluster
from llmop.cluster.slurm.commands import SlurmCommands
from llmop.domain import errors, os_errors, replica, resources, site
from llmop.manifest import load, merge
from llmop.reconciler import loop, ports, render, shared, trust
from llmop.rpc import server
from llmop.rpc import socket as control_socket
from llmop.runtimes import builtin
from llmop.settings import ControllerSettings
from llmop.store import interface, sql

_log = structlog.get_logger()

FILES = 65_536
RESYNC_S = 300
RETENTION_S = 3600
CHANGES_KEPT = 10_000
TOMBSTONES_KEPT_S = 7 * 86_400.0
EVENTS_KEPT_S = 7 * 86_400.0
USAGE_KEPT_S = 400 * 86_400.0  # a year can be compared with the one before
BUILTIN_MANAGER = "builtin"


async def run(
    settings: ControllerSettings,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None] = lambda address: None,
    clock: Clock | None = None,
) -> None:
    """Runs a controller until `stop` is set; `ready` is called with the control API's address when it answers.

    Raises NeedsUser for settings that cannot work, Deposed when another controller has taken over, Unavailable when the
    store does not answer at the start.
    """
    clock = clock or SystemClock()
    _raise_file_limit()
    async with contextlib.AsyncExitStack() as stack:
        # Whatever can be refused is refused before another controller is deposed.
        stack.enter_context(statedir.claim(settings.state_dir, "controller"))
        ca, certificate, key = certificates.ensure(settings.authority, settings.own_certificates, clock.now())
        door = stack.enter_context(listener.bind(settings.agent_host, settings.agent_port))
        control_socket.parse(settings.socket)
        store = await _opened(settings.store_url, stop)
        if store is None:
            return
        stack.push_async_callback(store.close)
        await trust.require(store, settings.authority, ca)
        await bootstrap(store, clock, settings)
        await _serve(settings, store, clock, stop, ready, ca, (certificate, key), door)


async def _opened(url: str, stop: asyncio.Event) -> sql.SqlStore | None:
    """None when `stop` was set first: a lease of another machine may be waited for for minutes, a database for as long as it hangs."""
    opening = asyncio.create_task(sql.open_store(url), name="store")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([opening, stopped], return_when=asyncio.FIRST_COMPLETED)
        return opening.result() if opening.done() else None
    finally:
        for task in (opening, stopped):
            task.cancel()
        await asyncio.gather(opening, stopped, return_exceptions=True)


async def _serve(
    settings: ControllerSettings,
    store: interface.Store,
    clock: Clock,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    ca: str,
    identity: tuple[Path, Path],
    door: socket.socket,
) -> None:
    """`identity` is the agent listener's certificate and key, `door` its socket."""
    installation = await store.installation()
    places = Places(store, installation, ca)
    reconciler = await loop.Reconciler.start(
        ports.Ports(
            store=store,
            clock=clock,
            make_cluster=lambda where: make_cluster(where, clock),
            make_files=lambda where: shared.DiskDirectory(Path(where.shared_dir)),
            install=places.install,
            jitter=random.random,
            stage=ProcessRunner(os.environ),
            url=settings.gateway_url,
        ),
        holder=f"{socket.gethostname()}:{os.getpid()}",
    )
    at = desk.Desk(store, clock, reconciler.epoch, reconciler.heard, reconciler.is_over)
    reconciler.attach(at)
    agents = listener.Listener(at, clock, *identity, door)
    async with contextlib.AsyncExitStack() as stack:
        await agents.start()
        stack.push_async_callback(agents.stop)
        stack.callback(at.close)
        places.urls = (f"https://{_advertised(settings)}:{agents.port}",)
        control = _control_server(settings, store, clock, reconciler, places)
        await control.start()
        stack.push_async_callback(control.stop)
        stack.enter_context(_scheduled(reconciler, store, clock, places))
        _log.info(
            "controller started",
            installation=installation,
            epoch=reconciler.epoch,
            api=settings.socket,
            agents=places.urls[0],
        )
        ready(settings.socket)
        inboxes = inbox.Inboxes(at, clock, installation, reconciler.lookout.places, reconciler.lookout.signal)
        at.deliver = inboxes.deliver
        await _work(reconciler, inboxes, agents, stop)


class Places:
    """Shared directories, made usable and told where this controller listens; again when a purge of old files has undone it."""

    def __init__(self, store: interface.Store, installation: str, ca: str) -> None:
        self.urls: tuple[str, ...] = ()
        self._store = store
        self._installation = installation
        self._ca = ca
        self._agent = Path(llmop.agent.__file__).with_name("agent.py").read_bytes()
        self._simulator = Path(llmop.simulator.__file__).parent
        self._known: dict[str, render.Installation] = {}
        self._threads: dict[str, file_threads.FileThreads] = {}  # by shared directory

    async def install(self, where: site.Site) -> render.Installation:
        """Raises OSError, also when the directory does not answer in time."""
        directory = shared.DiskDirectory(Path(where.shared_dir))
        known = self._known.get(where.shared_dir)
        if where.shared_dir not in self._threads:
            self._threads[where.shared_dir] = file_threads.FileThreads("install")
        threads = self._threads[where.shared_dir]
        if known is None or not await threads.run(directory.is_complete, known.agent, self._ca):
            if not await threads.run(directory.has_replicas) and (alive := await self._alive(where)):
                raise directory.vanished(alive)
            agent = await threads.run(self._install, directory)
            known = self._known[where.shared_dir] = render.Installation(
                id=self._installation, agent=agent, ca=self._ca
            )
        return known

    async def _alive(self, where: site.Site) -> list[str]:
        """Replicas on this cluster that have a job, as far as is known. Raises OSError where the store is away."""
        try:
            ledgers = await self._store.ledgers()
        except errors.Unavailable as error:
            words = f"{where.shared_dir} is not complete, and the store does not say whether replicas run: {error}"
            raise OSError(errno.EAGAIN, words, where.shared_dir) from error
        return [
            ledger.replica_name
            for ledger in ledgers
            if ledger.cluster == where.name
            and ledger.submission.job_id is not None
            and ledger.submission.state is not replica.SubmissionState.ENDED
        ]

    async def sweep(self) -> None:
        """Logs and claims live as long as the ledger remembers their replica. Raises Unavailable of the store."""
        for shared_dir in list(self._known):
            directory = shared.DiskDirectory(Path(shared_dir))
            threads = file_threads.FileThreads("sweep")
            try:
                found = await threads.run(directory.entries)
            except OSError as error:
                _log.warning(
                    "a shared directory was not cleaned up", error=os_errors.sentence(error, shared_dir)
                )
                continue
            ledgers = await self._store.ledgers()
            replicas = frozenset(ledger.replica_name for ledger in ledgers)
            jobs = frozenset(ledger.submission.job_name for ledger in ledgers)
            ended = frozenset(
                ledger.replica_name
                for ledger in ledgers
                if ledger.submission.state is replica.SubmissionState.ENDED
            )
            await threads.run_long(directory.sweep, found, self._installation, replicas, jobs, ended)

    def _install(self, directory: shared.DiskDirectory) -> str:
        directory.reserve(self._installation)
        agent = directory.install(self._agent, self._simulator)
        directory.publish(self.urls, self._ca)
        return agent


def _control_server(
    settings: ControllerSettings,
    store: interface.Store,
    clock: Clock,
    reconciler: loop.Reconciler,
    places: Places,
) -> server.ControlServer:
    return server.build(
        settings.socket,
        store=store,
        clock=clock,
        endpoints=reconciler.book,
        objects=reconciler.objects,
        loads=reconciler.scaler,
        seen_at=reconciler.lookout.seen_at,
        hint=reconciler.hint,
        administration=office.Office(
            store=store,
            clock=clock,
            reconciler=reconciler,
            state_dir=settings.state_dir,
            certificates=(settings.authority / "ca.pem", settings.own_certificates / "listener.pem"),
            environ=os.environ,
            install=places.install,
            make_cluster=lambda where: make_cluster(where, clock),
            addresses=lambda: places.urls,
        ),
    )


@contextlib.contextmanager
def _scheduled(
    reconciler: loop.Reconciler, store: interface.Store, clock: Clock, places: Places
) -> Iterator[None]:
    """What is done from time to time, whatever else happens."""
    scheduler = AsyncIOScheduler(
        timezone=datetime.UTC,
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
    scheduler.add_job(reconciler.resync, "interval", seconds=RESYNC_S)
    scheduler.add_job(retain, "interval", seconds=RETENTION_S, args=[store, clock, places])
    scheduler.start()
    try:
        yield
    finally:
        scheduler.shutdown(wait=False)


async def _work(
    reconciler: loop.Reconciler, inboxes: inbox.Inboxes, agents: listener.Listener, stop: asyncio.Event
) -> None:
    """Until it is told to stop. Raises what has ended one of the parts."""
    letters = asyncio.create_task(inboxes.run(), name="inboxes")
    work = asyncio.create_task(reconciler.run(), name="reconciler")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        until: list[asyncio.Future[Any]] = [work, letters, stopped, agents.ended]
        await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
        for each in (work, letters):
            if each.done():
                each.result()
        if agents.ended.done():
            agents.ended.result()
    finally:
        for task in (work, letters, stopped):
            task.cancel()
        await asyncio.gather(work, letters, stopped, return_exceptions=True)


def make_cluster(where: site.Site, clock: Clock) -> driver.Cluster:
    if where.driver is site.DriverKind.LOCAL:
        return LocalCluster(Path(where.shared_dir) / "jobs", clock, environ=os.environ)
    return SlurmCommands(clock, environ=os.environ, submit_timeout_s=where.submit_timeout_s)


def _raise_file_limit() -> None:
    """Every agent holds two connections. The limit does not reach jobs: they are submitted with --propagate=NONE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _advertised(settings: ControllerSettings) -> str:
    """The address that nodes use. Connecting a datagram socket sends nothing; it only asks the routing table."""
    host = settings.agent_advertise or settings.agent_host
    if host not in ("0.0.0.0", "::"):
        return f"[{host}]" if ":" in host else host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostbyname(socket.gethostname())


async def bootstrap(store: interface.Store, clock: Clock, settings: ControllerSettings) -> None:
    """Applies the built-in runtimes and profiles, each only over what nobody has changed, and the local cluster."""
    for texts in (builtin.runtimes(), builtin.profiles()):
        for name, text in texts.items():
            for document in load.load(text, name):
                await _apply_builtin(store, clock, document.data)
    if settings.local_cluster and not (await store.list(resources.CLUSTER)).items:
        await _apply_builtin(store, clock, local_cluster(settings.state_dir))


def local_cluster(state_dir: Path) -> dict[str, object]:
    """The manifest of the embedded default: this machine, under the name `default`."""
    return {
        "apiVersion": resources.API_VERSION,
        "kind": resources.CLUSTER,
        "metadata": {"name": "default"},
        "spec": {
            "driver": "local",
            "sharedDir": str(state_dir / "shared"),
            "python": sys.executable,
            "submitRate": {"perSecond": 20, "burst": 40},
            "pollInterval": {"min": "1s", "max": "10s"},
        },
    }


async def _apply_builtin(store: interface.Store, clock: Clock, manifest: Mapping[str, Any]) -> None:
    kind, name = str(manifest["kind"]), str(manifest["metadata"]["name"])
    try:
        live = await store.get(kind, "", name)
    except errors.NotFound:
        live = None
    try:
        applied = merge.apply(live, manifest, manager=BUILTIN_MANAGER)
    except (errors.Conflict, errors.Invalid) as reason:
        if live is None:
            raise
        _log.info(
            "a built-in was changed by hand and stays as it is", kind=kind, name=name, reason=str(reason)
        )
        return
    if live is None:
        made = dataclasses.replace(applied.resource, uid=clock.uid(), created_at=clock.now())
        await store.commit([interface.Create(resource=made)])
    elif applied.resource != live:
        await store.commit(
            [interface.Update(resource=applied.resource, expected_version=live.resource_version)]
        )


async def retain(store: interface.Store, clock: Clock, places: Places) -> None:
    """Drops history that nobody needs any more, in the store and then in the shared directories."""
    now = clock.now()
    try:
        await store.compact(
            changes_before=await store.revision() - CHANGES_KEPT,
            tombstones_before=now - TOMBSTONES_KEPT_S,
            events_before=now - EVENTS_KEPT_S,
        )
        await store.drop_usage(now - USAGE_KEPT_S)
        await places.sweep()
    except errors.Unavailable as error:
        _log.warning("nothing was cleaned up", error=str(error))
