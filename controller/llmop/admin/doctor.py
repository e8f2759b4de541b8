"""Gathers what `llmctl doctor` judges. Reads only; whatever does not answer becomes a fact."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from llmop.admin import diagnosis
from llmop.clock import Clock
from llmop.cluster import file_threads
from llmop.domain import errors, os_errors, resources
from llmop.domain.checks import Check
from llmop.reconciler.loop import Reconciler
from llmop.store.interface import Store

PATIENCE_S = 10.0


async def examine(
    store: Store, reconciler: Reconciler, clock: Clock, state_dir: Path, certificates: Sequence[Path]
) -> tuple[Check, ...]:
    """`certificates` are those of the agent channel."""
    store_problem, epoch_problem = "", ""
    stored: Sequence[resources.Resource] = ()
    names: dict[str, str] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            stored = (await store.list(resources.CLUSTER)).items
            names = {each.uid: each.name for each in (await store.list(resources.REPLICA)).items}
            await store.commit([], epoch=reconciler.epoch)
    except errors.Deposed as error:
        epoch_problem = str(error)
    except errors.Unavailable as error:
        store_problem = str(error)
    except TimeoutError:
        store_problem = f"did not answer within {PATIENCE_S:.0f} s"
    now = clock.now()
    clusters = tuple(_cluster(each, reconciler, now) for each in stored)
    disks = [await _disk("state directory", str(state_dir), diagnosis.STATE_LEAST_MIB)]
    disks += [
        await _disk(f"cluster {each.name}", str(each.spec.get("sharedDir", "")), diagnosis.SHARED_LEAST_MIB)
        for each in stored
    ]
    agents = reconciler.lookout.agents
    facts = diagnosis.Facts(
        now=now,
        store=store_problem,
        epoch=epoch_problem,
        clusters=clusters,
        agents={
            names.get(uid, uid): now - beat.due_from
            for uid, beat in agents.heartbeats.items()
            if beat.end is None
        },
        writing=frozenset(
            names.get(uid, uid)
            for uid, beat in agents.heartbeats.items()
            if beat.end is None and beat.by_file
        ),
        silent_s=reconciler.lookout.timing.suspect_s,
        gateways=reconciler.book.gateways(),
        table_version=reconciler.book.table().version,
        disks=tuple(disks),
        certificates={path.name: await asyncio.to_thread(_certificate_end, path) for path in certificates},
    )
    return diagnosis.checks(facts)


def _cluster(stored: resources.Resource, reconciler: Reconciler, now: float) -> diagnosis.Cluster:
    watch = reconciler.fleet.watches.get(stored.name)
    conditions = diagnosis.conditions(stored.status.get("conditions", ()))
    orphans = tuple(str(each) for each in stored.status.get("orphans", ()))
    if watch is None:
        return diagnosis.Cluster(name=stored.name, conditions=conditions, orphans=orphans)
    return diagnosis.Cluster(
        name=stored.name,
        problem=watch.problem,
        snapshot_age_s=None if watch.taken_at is None else max(0.0, now - watch.taken_at),
        brake=watch.braked,
        directory_problem=watch.directory_problem,
        clock_ahead_s=watch.capabilities.clock_ahead_s if watch.capabilities is not None else None,
        conditions=conditions,
        orphans=orphans,
    )


async def _disk(subject: str, path: str, least_mib: int) -> diagnosis.Disk:
    """A file system that hangs is a finding, not a reason to hang."""
    free_mib, problem = None, ""
    try:
        shown = await file_threads.FileThreads("doctor").run(os.statvfs, path)
        free_mib = shown.f_bavail * shown.f_frsize // diagnosis.MIB
    except OSError as error:
        problem = error.strerror or str(error)
    return diagnosis.Disk(subject=subject, path=path, least_mib=least_mib, free_mib=free_mib, problem=problem)


def _certificate_end(path: Path) -> float | str:
    """Epoch seconds, or why it cannot be read."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except OSError as error:
        return os_errors.sentence(error, path)
    except ValueError:
        return f"{path}: is no certificate"
