"""One seed: a world with its chaos and its users for some hours, then peace, then the questions whether all is well."""

import asyncio
import collections
import dataclasses
import random
import tempfile
from pathlib import Path

from llmop.cluster.slurm import states
from llmop.domain import job, replica, site
from llmop.store import interface, sql, sqlite
from llmop.testing import crowd, film, invariants
from llmop.testing.clock import FakeClock
from llmop.testing.faults import Chaos, Users
from llmop.testing.memory_store import MemoryStore
from llmop.testing.virtual_slurm.shape import Shape, constant, lognormal, unchanged, uniform
from llmop.testing.world import World

PATIENCE_S = (
    4 * 3600.0
)  # after the last fault: budgets last an hour, queue waits up to one, a walltime end may fall in between
LOOK_S = 120.0
INSTALLATION = "k3v9qd"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How long, how wild, and on what. `fault_every_s` and `user_every_s` are means."""

    hours: float = 2.0
    fault_every_s: float = 120.0
    user_every_s: float = 300.0
    store: str = "memory"  # memory | sqlite


@dataclasses.dataclass(slots=True)
class Result:
    """What happened under one seed, or under several. `violations` are (seed, rule and detail, film)."""

    seeds: int = 0
    hours: float = 0.0
    passes: int = 0  # over one key, that planned an action which was not planned before
    looks: int = 0  # all passes
    faults: int = 0
    actions: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    blows: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    letters: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    rows: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    steps: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    transitions: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    violations: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)

    def add(self, other: "Result") -> None:
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, mine + theirs)

    def never_fired(self) -> list[str]:
        """Rows of the tables of Slurm's words, and reasons of ends, that no world came to."""
        rows = [row for row in states.ALL_ROWS if not self.rows[row]]
        ends = [f"end/{reason}" for reason in replica.EndReason if not self.reasons[str(reason)]]
        return [*rows, *ends]


def simulate(seed: int, setting: Setting) -> Result:
    """Plays one seed on an event loop of its own."""
    return asyncio.run(_simulate(seed, setting))


async def _simulate(seed: int, setting: Setting) -> Result:
    if setting.store == "memory":
        return await _play(seed, setting, MemoryStore(INSTALLATION))
    # In memory where that is possible: what a disk does with fsync is not what is looked at here.
    shm = Path("/dev/shm")  # noqa: S108  (a directory of our own in it)
    with tempfile.TemporaryDirectory(prefix="llmop-simulation-", dir=shm if shm.is_dir() else None) as folder:
        store = sql.SqlStore(await sqlite.open_sqlite(Path(folder) / "store.db", shared=False, threads=False))
        try:
            return await _play(seed, setting, store)
        finally:
            await store.close()


async def _play(seed: int, setting: Setting, store: interface.Store) -> Result:
    source = random.Random(f"{seed}/setting")
    world = _world(seed, store, source)
    await world.begin()
    chaos = Chaos(world, setting.fault_every_s * source.choice((0.5, 1.0, 2.0)))
    users = Users(world, setting.user_every_s * source.choice((0.5, 1.0, 2.0)), scales=seed % 2 == 1)
    requests = crowd.Crowd(world, setting.user_every_s * source.choice((1.0, 3.0)))
    if users.scales:
        requests.start()
    users.start()
    chaos.start()
    result = Result(seeds=1, hours=setting.hours)
    try:
        await world.run(world.start + setting.hours * 3600)
        chaos.stop()
        requests.stop()
        await users.stop()
        await _calm_down(world)
    except invariants.Violation as violation:
        result.violations.append((seed, str(violation), film.show(world.film, world.start)))
    finally:
        await world.end()
    result.passes, result.looks = world.plans.acting, world.passes
    result.faults = sum(chaos.counts.values()) + sum(world.blows.values())
    result.actions.update(world.plans.actions)
    result.blows.update(world.blows)
    result.kinds.update(chaos.counts)
    result.letters.update(world.letters)
    result.rows.update(world.slurm.fired)
    result.reasons.update(world.plans.reasons)
    result.steps.update(world.steps)
    result.transitions.update(world.plans.transitions)
    return result


def _strips_dependency(request: job.JobRequest) -> job.JobRequest:
    """A site whose plugin takes the singleton away: only the claim keeps twins apart."""
    return dataclasses.replace(request, singleton=False)


def _world(seed: int, store: interface.Store, source: random.Random) -> World:
    clock = FakeClock(seed)
    shape = Shape(
        nodes={f"n{number}": 4 for number in range(1, 7)},
        queue_wait=source.choice((constant(0), uniform(0, 30), lognormal(30, 1.2, 1800))),
        configuring=source.choice((constant(0), uniform(0, 60))),
        completing=source.choice((constant(0), constant(1), uniform(0, 90))),
        min_job_age_s=source.choice((5, 60, 300)),
        node_timeout_s=source.choice((60, 300)),
        accounting=source.random() < 0.5,
        skew_s=source.choice((0.0, 0.0, 2.0, -2.0, 45.0, -45.0, 600.0, -600.0)),
        plugin=_strips_dependency if seed % 4 == 3 else unchanged,
    )
    return World(
        seed,
        store,
        clock,
        shape,
        period_s=source.choice((5.0, 20.0, 60.0)),
        orphan_policy=source.choice((site.OrphanPolicy.CANCEL, site.OrphanPolicy.REPORT)),
        time_limit=source.choice(("1h", "3h", "12h")),
        poll_s=source.choice((5, 20, 60)),
    )


async def _calm_down(world: World) -> None:
    """Once nothing goes wrong any more, everything becomes as it is wanted, and stays so for a while."""
    deadline = world.clock.now() + PATIENCE_S
    why = "nobody has looked"
    while world.clock.now() < deadline:
        await world.run(world.clock.now() + LOOK_S)
        why = await world.judge.unsettled()
        if not why:
            return
    raise invariants.Violation("every deployment converges once faults stop", why)
