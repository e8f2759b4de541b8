"""What goes wrong in a world, and what its users do; both in an order that follows from the seed."""

import dataclasses
import json
import random
from collections.abc import Awaitable, Callable

from llmop.cluster.slurm import states
from llmop.domain import errors, ids, job, resources, times
from llmop.rpc import rollout, writing
from llmop.testing import agents, builders, crowd, leaders
from llmop.testing.virtual_slurm.faults import SnapshotFault, SubmitFault
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.world import World

Fault = Callable[[World, random.Random], None]
DEPLOYMENTS = ("chat", "code", "embed")
MOST_REPLICAS = 5

_LYING = (SnapshotFault.EMPTY, SnapshotFault.MISSING, SnapshotFault.STALE)
_BROKEN = (
    SnapshotFault.TIMEOUT,
    SnapshotFault.FAILS,
    SnapshotFault.TRUNCATED,
    SnapshotFault.GARBAGE,
    SnapshotFault.NOISE,
)
# What Slurm may call a job that runs. To call it waiting, held, frozen or over would be a lie that nobody could see through.
_RUNS = (job.JobState.RUNNING, job.JobState.CONFIGURING, job.JobState.UNKNOWN)
_LIVE_WORDS = (*(row.word for row in states.STATE_ROWS if row.state in _RUNS and row.word), "TELEPORTING")
_REASONS = (*(row.start + row.contains for row in states.PENDING_ROWS if row.start), "NobodyKnows")
_TEXTS = (*(row.text for row in states.SUBMIT_ROWS if row.text), "sbatch: error: who knows")


def _pick(source: random.Random, jobs: list[VirtualJob]) -> VirtualJob | None:
    return source.choice(jobs) if jobs else None


def _ours(world: World, *phases: Phase) -> list[VirtualJob]:
    return [one for one in world.slurm.jobs() if one.phase in phases and one not in world.foreign]


def _agent(world: World, source: random.Random) -> agents.Agent | None:
    known = [
        each
        for job, each in world.agents.items()
        if each.engine is not None and world.cluster_of(job) == builders.CLUSTER
    ]
    return source.choice(known) if known else None


def _aim(blow: leaders.Blow, most: int) -> Fault:
    def fault(world: World, source: random.Random) -> None:
        if world.leader is not None and not any(aim.blow is blow for aim in world.leader.aims):
            world.leader.aims.append(leaders.Aim(blow, source.randint(1, most)))

    return fault


def _restart(world: World, source: random.Random) -> None:
    world.restart_leader()


def _accepted_unseen(world: World, source: random.Random) -> None:
    world.slurm.fail_submits(SubmitFault.ACCEPTED_UNSEEN, times=source.randint(1, 3))


def _lands_late(world: World, source: random.Random) -> None:
    world.judge.lied_at = world.clock.now() + 400
    world.slurm.fail_submits(SubmitFault.ACCEPTED_UNSEEN, delay_s=source.choice((5.0, 50.0, 90.0, 400.0)))


def _lost(world: World, source: random.Random) -> None:
    world.slurm.fail_submits(SubmitFault.LOST, times=source.choice((1, 1, 2, 5)))


def _says(world: World, source: random.Random) -> None:
    world.slurm.fail_submits(SubmitFault.SAYS, text=source.choice(_TEXTS))


def _slow_sbatch(world: World, source: random.Random) -> None:
    world.slow["submit"] = source.choice((1.0, 20.0, 170.0))
    world.after(source.uniform(60, 600), lambda: _usual_speed(world, "submit"))


def _slow_squeue(world: World, source: random.Random) -> None:
    world.slow["snapshot"] = source.choice((0.5, 3.0, 20.0))
    world.after(source.uniform(60, 600), lambda: _usual_speed(world, "snapshot"))


def _usual_speed(world: World, call: str) -> None:
    world.slow.pop(call, None)


def _broken_snapshot(world: World, source: random.Random) -> None:
    world.slurm.fail_snapshots(source.choice(_BROKEN), times=source.choice((1, 1, 2, 6)))


def _lying_snapshot(world: World, source: random.Random) -> None:
    world.judge.lied_at = world.clock.now() + 120
    world.slurm.fail_snapshots(source.choice(_LYING), times=source.choice((1, 1, 1, 2)))


def _failing_cancel(world: World, source: random.Random) -> None:
    world.slurm.fail_cancels(times=source.randint(1, 3))


def _preempt(world: World, source: random.Random) -> None:
    chosen = _pick(source, _ours(world, Phase.RUNNING, Phase.SUSPENDED))
    if chosen is not None:
        world.slurm.preempt(chosen.id, grace_s=source.choice((0.0, 60.0, 600.0)))


def _requeue(world: World, source: random.Random) -> None:
    chosen = _pick(source, _ours(world, Phase.RUNNING))
    if chosen is not None:
        world.slurm.requeue(chosen.id)


def _kill_node(world: World, source: random.Random) -> None:
    name = source.choice(sorted(world.slurm.shape.nodes))
    world.slurm.kill_node(name)
    world.cut_nodes.add(name)
    world.after(source.choice((60.0, 400.0, 3000.0)), lambda: _restore(world, name))


def _cut_node(world: World, source: random.Random) -> None:
    name = source.choice(sorted(world.slurm.shape.nodes))
    world.slurm.cut_off_node(name)
    world.cut_nodes.add(name)
    world.after(source.choice((10.0, 60.0, 400.0, 1500.0)), lambda: _restore(world, name))


def _wall_node(world: World, source: random.Random) -> None:
    name = source.choice(sorted(world.slurm.shape.nodes))
    world.walled_nodes.add(name)
    world.after(source.choice((60.0, 400.0, 4000.0)), lambda: world.walled_nodes.discard(name))


def _restore(world: World, name: str) -> None:
    if name in world.cut_nodes:
        world.cut_nodes.discard(name)
        world.slurm.restore_node(name)


def _drain_node(world: World, source: random.Random) -> None:
    name = source.choice(sorted(world.slurm.shape.nodes))
    world.slurm.drain_node(name)
    world.after(source.uniform(60, 1800), lambda: world.slurm.drain_node(name, drained=False))


def _suspend(world: World, source: random.Random) -> None:
    chosen = _pick(source, _ours(world, Phase.RUNNING))
    if chosen is None:
        return
    chosen_id = chosen.id
    world.slurm.suspend(chosen_id)
    world.after(source.choice((10.0, 60.0, 1000.0)), lambda: _resume(world, chosen_id))


def _resume(world: World, job_id: int) -> None:
    if world.slurm.job(job_id) is not None:
        world.slurm.resume(job_id)


def _hold(world: World, source: random.Random) -> None:
    chosen = _pick(source, _ours(world, Phase.PENDING))
    if chosen is not None:
        world.slurm.hold(chosen.id, by_admin=source.random() < 0.5)
        _release_later(world, source, chosen.id)


def _block(world: World, source: random.Random) -> None:
    chosen = _pick(source, _ours(world, Phase.PENDING))
    if chosen is not None:
        world.slurm.block(chosen.id, source.choice(_REASONS))
        _release_later(world, source, chosen.id)


def _release_later(world: World, source: random.Random, job_id: int) -> None:
    def release() -> None:
        if world.slurm.job(job_id) is not None:
            world.slurm.release(job_id)

    world.after(source.choice((20.0, 300.0, 1500.0)), release)


def _strange_word(world: World, source: random.Random) -> None:
    chosen = _pick(source, _ours(world, Phase.RUNNING))
    if chosen is None:
        return
    chosen_id = chosen.id
    world.slurm.show_as(chosen_id, source.choice(_LIVE_WORDS))

    def again() -> None:
        if world.slurm.job(chosen_id) is not None:
            world.slurm.show_as(chosen_id, "")

    world.after(source.uniform(5, 120), again)


def _reserve(world: World, source: random.Random) -> None:
    now = world.clock.now()
    start = now + source.uniform(0, 1800)
    world.slurm.reserve(start, start + source.uniform(60, 1200))


def _close_partition(world: World, source: random.Random) -> None:
    world.slurm.close_partition("gpu")
    world.after(source.uniform(30, 900), lambda: world.slurm.close_partition("gpu", closed=False))


def _quota(world: World, source: random.Random) -> None:
    world.slurm.limit(max_submit=source.choice((None, 2, 5)), max_running=source.choice((None, 1, 3)))
    world.has_quota = True
    world.after(source.uniform(60, 1500), lambda: _no_quota(world))


def _no_quota(world: World) -> None:
    world.slurm.limit()
    world.has_quota = False


def _slurm_away(world: World, source: random.Random) -> None:
    world.slurm.set_down(True)
    world.after(source.choice((5.0, 60.0, 600.0)), lambda: world.slurm.set_down(False))


def _slurm_hangs(world: World, source: random.Random) -> None:
    world.judge.lied_at = world.clock.now() + 700
    world.slurm.freeze()
    world.after(source.choice((5.0, 60.0, 600.0)), world.slurm.thaw)


def _slurm_crashes(world: World, source: random.Random) -> None:
    """slurmctld comes back with its state of some seconds ago: jobs are gone, or wait again, that were there before."""
    world.judge.lied_at = world.clock.now() + 300
    world.slurm.crash(unsaved_s=source.choice((1.0, 5.0, 30.0)))


def _state_lost(world: World, source: random.Random) -> None:
    world.judge.lied_at = world.clock.now() + 900
    world.judge.state_lost()
    world.slurm.lose_state(kill_after_s=source.choice((10.0, 60.0, 400.0)))


def _accounting_away(world: World, source: random.Random) -> None:
    world.slurm.set_accounting_down(True)
    world.after(source.uniform(30, 900), lambda: world.slurm.set_accounting_down(False))


def _ids_again(world: World, source: random.Random) -> None:
    world.slurm.restart_ids(source.randint(1, 50))


def _admin_cancels(world: World, source: random.Random) -> None:
    chosen = _pick(source, _ours(world, Phase.RUNNING, Phase.PENDING, Phase.SUSPENDED))
    if chosen is not None:
        world.slurm.cancel_by_hand(chosen.id)


def _engine_crashes(world: World, source: random.Random) -> None:
    agent = _agent(world, source)
    if agent is not None:
        agent.crash(source.choice((*agents.EXIT_CODES, 1, 0)), silently=source.random() < 0.4)


def _engine_stumbles(world: World, source: random.Random) -> None:
    agent = _agent(world, source)
    if agent is not None:
        agent.stumble(source.choice((3.0, 30.0, 300.0)))


def _lossy_messages(world: World, source: random.Random) -> None:
    world.message_loss = source.choice((0.1, 0.5, 1.0))

    def whole() -> None:
        world.message_loss = 0.0

    world.after(source.choice((20.0, 120.0, 700.0)), whole)


def _gateway_cut(world: World, source: random.Random) -> None:
    gateway = source.choice(world.tables.gateways)
    gateway.is_cut = True

    def back() -> None:
        gateway.is_cut = False

    world.after(source.choice((2.0, 30.0, 600.0)), back)


def _disk_full(world: World, source: random.Random) -> None:
    world.files.is_writable = False

    def free() -> None:
        world.files.is_writable = True

    world.after(source.uniform(10, 300), free)


def _foreign_job(world: World, source: random.Random) -> None:
    """Somebody's job with a name that looks like one of ours."""
    uid = f"{source.getrandbits(32):08x}"
    names = (
        f"llmop-zzzzzz-chat-abcde-{uid}",  # another installation
        f"llmop-{world.installation}-chat",  # no replica of anybody
        f"llmop-{world.installation}x-chat-abcde-{uid}",
        f"Llmop-{world.installation}-chat-abcde-{uid}",
        "train",
    )
    if not world.has_quota:
        world.foreign.add(world.slurm.submit_by_hand(_by_hand(source.choice(names), source)))


def _stray_job(world: World, source: random.Random) -> None:
    """A job with a name of this installation that no row knows: from a backup that was restored, or made by hand."""
    name = ids.job_name(world.installation, "chat-stray", f"{source.getrandbits(32):08x}")
    if not world.has_quota:
        world.judge.strays.add(world.slurm.submit_by_hand(_by_hand(name, source)))


def _by_hand(name: str, source: random.Random) -> job.JobRequest:
    return job.JobRequest(
        name=name, options=(), script="", directory="/home/them", time_limit_s=source.choice((600, 7200))
    )


# (name, how often compared with the others, what happens)
FAULTS: tuple[tuple[str, int, Fault], ...] = (
    ("crash", 12, _aim(leaders.Blow.CRASH, 12)),
    ("old leader pauses", 5, _aim(leaders.Blow.PAUSE, 12)),
    ("commit answer lost", 6, _aim(leaders.Blow.LOSE_ANSWER, 6)),
    ("store unavailable", 6, _aim(leaders.Blow.REFUSE, 6)),
    ("restart", 3, _restart),
    ("sbatch accepted unseen", 6, _accepted_unseen),
    ("sbatch lands late", 3, _lands_late),
    ("sbatch lost", 4, _lost),
    ("sbatch says", 5, _says),
    ("sbatch slow", 3, _slow_sbatch),
    ("squeue slow", 3, _slow_squeue),
    ("squeue broken", 6, _broken_snapshot),
    ("squeue lies", 4, _lying_snapshot),
    ("scancel fails", 4, _failing_cancel),
    ("preemption", 5, _preempt),
    ("requeue", 4, _requeue),
    ("node dies", 2, _kill_node),
    ("node cut off", 3, _cut_node),
    ("firewall closes", 3, _wall_node),
    ("node drained", 1, _drain_node),
    ("suspension", 4, _suspend),
    ("hold", 4, _hold),
    ("blocked", 5, _block),
    ("strange state", 4, _strange_word),
    ("maintenance", 1, _reserve),
    ("partition closed", 1, _close_partition),
    ("quota", 2, _quota),
    ("slurmctld away", 2, _slurm_away),
    ("slurmctld hangs", 2, _slurm_hangs),
    ("slurmctld crashes", 2, _slurm_crashes),
    ("slurmctld loses its state", 1, _state_lost),
    ("accounting away", 2, _accounting_away),
    ("ids again", 1, _ids_again),
    ("admin cancels", 5, _admin_cancels),
    ("engine crashes", 10, _engine_crashes),
    ("engine stumbles", 4, _engine_stumbles),
    ("messages lost", 3, _lossy_messages),
    ("gateway cut off", 2, _gateway_cut),
    ("directory not writable", 2, _disk_full),
    ("foreign job", 2, _foreign_job),
    ("stray job", 1, _stray_job),
)


@dataclasses.dataclass
class Chaos:
    """Lets things go wrong, `every_s` seconds on average, until `stop`."""

    world: World
    every_s: float
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    is_over: bool = False

    def __post_init__(self) -> None:
        self._source = random.Random(f"{self.world.seed}/faults")

    def start(self) -> None:
        self._next()

    def _next(self) -> None:
        self.world.after(self._source.expovariate(1 / self.every_s), self._strike)

    def _strike(self) -> None:
        if self.is_over:
            return
        weights = [weight for _, weight, _ in FAULTS]
        name, _, fault = self._source.choices(FAULTS, weights)[0]
        self.counts[name] = self.counts.get(name, 0) + 1
        self.world.note(f"fault: {name}")
        fault(self.world, self._source)
        self._next()

    def stop(self) -> None:
        """The world heals: what was announced does not happen, and everything that was broken works."""
        self.is_over = True
        world = self.world
        world.note("the world heals")
        world.slurm.clear_faults()
        _no_quota(world)
        world.slurm.close_partition("gpu", closed=False)
        world.slow.clear()
        world.message_loss = 0.0
        world.walled_nodes.clear()
        world.files.is_writable = True
        if world.leader is not None:
            world.leader.aims.clear()
        for gateway in world.tables.gateways:
            gateway.is_cut = False
        for name in sorted(world.slurm.shape.nodes):
            world.slurm.drain_node(name, drained=False)
            _restore(world, name)
        for one in world.slurm.live_jobs():
            world.slurm.show_as(one.id, "")
            world.slurm.release(one.id)
            world.slurm.resume(one.id)


@dataclasses.dataclass
class Users:
    """Apply, scale, change, delete: what people do through the control API."""

    world: World
    every_s: float
    scales: bool = False  # some deployments follow their load
    is_over: bool = False
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._source = random.Random(f"{self.world.seed}/users")
        self._version = 0

    def start(self) -> None:
        self.world.after(0.0, self._first)
        self._next()

    async def _first(self) -> None:
        for name in DEPLOYMENTS[: self._source.randint(1, 3)]:
            await self._apply(name, self._source.randint(1, MOST_REPLICAS))

    def _next(self) -> None:
        self.world.after(self._source.expovariate(1 / self.every_s), self._come)

    def _come(self) -> Awaitable[None] | None:
        if self.is_over:
            return None
        self._next()
        if self._source.random() < 0.3:
            # In the moment between what the controller reads and what it writes.
            self.world.interlopers = [self.act]
            return None
        return self.act()

    async def act(self) -> None:
        name = self._source.choice(DEPLOYMENTS)
        deeds: list[tuple[str, int, Callable[[], Awaitable[object]]]] = [
            ("apply", 3, lambda: self._apply(name, self._source.randint(0, MOST_REPLICAS))),
            ("scale", 5, lambda: self._scale(name)),
            ("change", 5, lambda: self._change(name)),
            ("pause", 2, lambda: self._rollout(name, rollout.pausing(True))),
            ("resume", 2, lambda: self._rollout(name, rollout.pausing(False))),
            ("restart", 1, lambda: self._restart(name)),
            ("break", 2, lambda: self._change(name, fails=True)),
            ("delete", 2, lambda: self._delete(resources.MODEL_DEPLOYMENT, name)),
            ("delete replica", 2, self._delete_replica),
        ]
        what, _, deed = self._source.choices(deeds, [weight for _, weight, _ in deeds])[0]
        if self.is_over:
            return
        try:
            await deed()
            self.counts[what] = self.counts.get(what, 0) + 1
            self.world.note(f"user: {what} {name}")
        except errors.LlmopError as error:
            self.world.note(f"user: {what} {name}: {error}")

    async def _apply(self, name: str, replicas: int, *, fails: bool = False) -> None:
        env = {"VERSION": str(self._version)}
        if fails:
            env[agents.FAIL_VARIABLE] = str(self._source.choice(agents.EXIT_CODES))
        scaled = self.scales and self._source.random() < 0.5
        document = builders.deployment_manifest(
            name,
            **({"scaling": crowd.bounds(self._source, MOST_REPLICAS)} if scaled else {"replicas": replicas}),
            env=env,
            rolloutStrategy={
                "maxSurge": self._source.choice((1, 1, 2)),
                "maxUnavailable": self._source.choice((0, 0, 1)),
            },
            minReady=self._source.choice(("0s", "0s", "20s")),
            terminationGracePeriod=self._source.choice(("120s", "10s")),
        )
        await self.world.writer.apply(
            json.dumps(document), namespace="default", manager="simulation", force=True, dry_run=False
        )

    async def _scale(self, name: str) -> None:
        await self.world.writer.scale(
            "default",
            name,
            self._source.randint(0, MOST_REPLICAS),
            current_replicas=None,
            resource_version=0,
        )

    async def _restart(self, name: str) -> None:
        await self._rollout(name, rollout.restarting(times.to_rfc3339(self.world.clock.now())))

    async def _rollout(self, name: str, change: writing.Change) -> None:
        await self.world.writer.change(
            "default", name, change, verb="rollout", manager="rollout", dry_run=False
        )

    async def _change(self, name: str, *, fails: bool = False) -> None:
        self._version += self._source.choice((1, 1, 1, -1))
        live = await self.world.store.get(resources.MODEL_DEPLOYMENT, "default", name)
        await self._apply(name, int(live.spec.get("replicas", 1)), fails=fails)

    async def _delete(self, kind: str, name: str) -> writing.Outcome:
        return await self.world.writer.delete(
            kind, "default", name, uid="", resource_version=0, dry_run=False
        )

    async def _delete_replica(self) -> None:
        listed = (await self.world.store.list(resources.REPLICA)).items
        theirs = [each for each in listed if each.spec.get("cluster") == builders.CLUSTER]
        if theirs:
            await self._delete(resources.REPLICA, self._source.choice(theirs).name)

    async def stop(self) -> None:
        """Everybody wants something that can work, and then wants nothing more."""
        self.is_over = True
        self.world.interlopers = []
        for each in (await self.world.store.list(resources.MODEL_DEPLOYMENT)).items:
            if each.deleted_at is None and each.name in DEPLOYMENTS:
                self._version += 100
                if each.spec.get("paused"):
                    await self._rollout(each.name, rollout.pausing(False))
                await self._apply(each.name, self._source.randint(0, MOST_REPLICAS))
