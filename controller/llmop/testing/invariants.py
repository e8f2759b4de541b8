"""What must hold in every world at every time."""

import collections
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmop.domain import endpoint, ids, replica, resources, rollouts, site, staging
from llmop.domain.job import Snapshot
from llmop.planner import assess, autoscale, drain, engine_load, rollout, values
from llmop.testing import crowd, places
from llmop.testing.agents import Engine
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob

if TYPE_CHECKING:
    from llmop.testing.gateways import Gateway
    from llmop.testing.leaders import Leader
    from llmop.testing.world import World

SLACK_S = 15.0
CATCH_UP_S = (
    30.0  # more than the time between two sweeps: behind at both of them, with the time of a pull in between
)
ORPHAN_SWEEPS = (
    45  # looks of 20 s with a controller and a Slurm that answer: grace time, polls and cancellations fit in
)
ELSEWHERE = "what goes wrong on one cluster touches nothing on another"
QUIET_START_S = 1800.0  # controllers die and the store is away meanwhile
_HOLDING = frozenset({Phase.PENDING, Phase.CONFIGURING, Phase.RUNNING, Phase.SUSPENDED})
_WITHOUT_JOB = frozenset({replica.SubmissionState.ENDED, replica.SubmissionState.REJECTED})
_OURS = frozenset({replica.DrainReason.REPLACED, replica.DrainReason.SCALED_DOWN})


class Violation(AssertionError):
    """Something happened that must not."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail


def _wanted(desired: values.Desired, plan: values.Plan) -> int:
    """How many replicas the deployment shall have: what was written, or what was decided by its load."""
    record = plan.status.record.scaling
    return record.desired if record is not None else desired.deployment.spec.replicas


def _kept(desired: values.Desired, number: int) -> tuple[str, tuple[staging.Pin, ...]] | None:
    """The template's hash and the bytes of a revision; None where it is not kept."""
    for each in desired.revisions:
        if each.number == number:
            return each.hash, each.pins
    return None


class Judge:
    """Looks at plans, orders, cancellations and tables as they happen, and at the world as a whole at every `sweep`."""

    def __init__(self, world: "World") -> None:
        self._world = world
        # By deployment uid: when each step was seen, and whether the load asked for more by it.
        self._steps: dict[str, dict[tuple[float, int, int], tuple[float, bool]]] = {}
        self._bounds: dict[str, list[tuple[float, int]]] = {}  # by deployment uid: (since, jobs allowed)
        self._drained_at: dict[str, float] = {}  # by replica uid
        self._drains: dict[
            str, tuple[str | None, float]
        ] = {}  # by replica uid: its job's id, and the deadline
        self._orphaned: collections.Counter[VirtualJob] = collections.Counter()
        self._overdue: collections.Counter[VirtualJob] = collections.Counter()
        self.lied_at = float("-inf")  # when Slurm last said something wrong that looked right
        self.strays: set[VirtualJob] = set()  # jobs with a name of ours that we have not made
        self._state_lost_at = float("inf")
        self._complete_looks = 0  # since then
        self._behind: dict[str, tuple[int, float]] = {}  # by gateway: its old version, and since when

    # As it happens

    def state_lost(self) -> None:
        """Slurm has forgotten every job, and says so in complete snapshots."""
        self._state_lost_at = self._world.clock.now()
        self._complete_looks = 0

    def looked(self, snapshot: Snapshot) -> None:
        """A controller has got this snapshot."""
        self._complete_looks += snapshot.is_complete

    def planned(
        self, leader: "Leader", desired: values.Desired, seen: values.Observed, plan: values.Plan
    ) -> None:
        for each in desired.replicas:
            if each.drain is not None:
                self._drained_at[each.uid] = each.drain.requested_at
                self._drains[each.uid] = (each.submission.job_id, each.drain.deadline_at)
            else:  # what a controller planned that ended before it was written down
                self._drains.pop(each.uid, None)
        for action in plan.actions:
            if isinstance(action, values.StartDrain):
                self._drained_at.setdefault(action.replica.uid, action.drain.requested_at)
                self._drains[action.replica.uid] = (
                    action.replica.submission.job_id,
                    action.drain.deadline_at,
                )
        self._elsewhere(leader, plan)
        self._rows(desired, seen, plan)
        self._floor(desired, seen, plan)
        self._given_up(plan)
        self._pause(desired, plan)
        self._same(desired, plan)
        self._scale(desired, plan)

    def _scale(self, desired: values.Desired, plan: values.Plan) -> None:
        """Never fewer or more replicas than may be, nothing is given up soon after it was asked for, and nothing that full caches need."""
        bounds, record = desired.deployment.spec.scaling, plan.status.record.scaling
        if bounds is None or record is None:
            return
        if not bounds.min_replicas <= record.desired <= bounds.max_replicas:
            raise Violation(
                "the load asks for no more and no fewer replicas than may be",
                f"{record.desired} replicas of {desired.deployment.name}",
            )
        now = self._world.clock.monotonic()
        steps = self._steps.setdefault(desired.deployment.uid, {})
        stored = desired.record.scaling.history if desired.record.scaling is not None else ()
        for step in stored:
            if (step.at, step.before, step.after) in steps:
                continue
            self._world.steps[step.reason] += 1
            risen = [at for at, asked in steps.values() if asked]
            # What limits or a schedule asked for goes with them.
            steps[(step.at, step.before, step.after)] = (now, step.reason in ("LoadRose", "Woken"))
            caches = (step.inputs.get("engines") or {}).get("kvCaches") or 0.0
            if step.reason == "LoadFell" and caches > engine_load.FULL * step.after + 0.01:
                raise Violation(
                    "replicas that full caches need are not given up",
                    f"{desired.deployment.name} from {step.before} to {step.after} with {caches} full caches",
                )
            if step.reason not in ("LoadFell", "Idle") or not risen:
                continue
            soonest = autoscale.Fleet(ready=0, on_the_way=0, lead_s=0.0)
            held_s = autoscale.window_s(bounds.down, soonest, autoscale.remember(0, now), now)
            least_s = held_s if step.reason == "LoadFell" else bounds.scale_to_zero_after_s
            if now - risen[-1] < least_s - crowd.TICK_S * 5:
                raise Violation(
                    "what the load asks for is not given up at once",
                    f"{desired.deployment.name} from {step.before} to {step.after} after {now - risen[-1]} s",
                )

    def _elsewhere(self, leader: "Leader", plan: values.Plan) -> None:
        if leader is not self._world.leader:
            return  # what a deposed one plans is refused; what it does is seen by `cancels`
        serving = {each.uid for each in self._world.engines if self._is_left_alone(each)}
        for action in plan.actions:
            if isinstance(action, values.StartDrain | values.RecordEnd) and action.replica.uid in serving:
                raise Violation(ELSEWHERE, f"{leader.name}: {type(action).__name__} {action.replica.name}")

    def _is_left_alone(self, engine: Engine | None) -> bool:
        """It serves on the cluster on which nothing goes wrong, and nobody wants it otherwise."""
        return engine is not None and engine.proven_at is not None and engine.node == places.CALM_NODE

    def _given_up(self, plan: values.Plan) -> None:
        """A fleet that is gone in one snapshot is believed gone only when a second one says so too."""
        for action in plan.actions:
            if not isinstance(action, values.RecordEnd) or action.end.reason is not replica.EndReason.LOST:
                continue
            first_look_at = action.replica.missing_since
            was_missed = first_look_at is not None and first_look_at < self._state_lost_at
            if self._complete_looks == 1 and not was_missed:
                raise Violation("nobody is given up after one look", action.replica.name)

    def _rows(self, desired: values.Desired, seen: values.Observed, plan: values.Plan) -> None:
        """Never more replicas that hold or may get a job than desired + surge, now or when the oldest of them was wanted."""
        deployment = desired.deployment
        allowed = (
            0 if deployment.deleted_at is not None else _wanted(desired, plan) + deployment.spec.max_surge
        )
        history = self._bounds.setdefault(deployment.uid, [])
        if not history or history[-1][1] != allowed:
            history.append((seen.now, allowed))
        holding = [each.replica for each in plan.replicas if self._holds(each.replica)]
        made = [action.replica for action in plan.actions if isinstance(action, values.CreateReplica)]
        if not holding and not made:
            return
        bound = self._bound(deployment.uid, min(each.created_at for each in [*holding, *made]))
        if len(holding) + len(made) > bound and seen.now - self.lied_at > 900:
            names = [each.name for each in [*holding, *made]]
            raise Violation(
                "never more jobs than desired + surge", f"{len(names)} replicas, {bound} allowed: {names}"
            )

    def _holds(self, each: replica.Replica) -> bool:
        """It may get a job, or has one that waits or runs.

        A job that was on its way out, and replaced, when the site put it back into the queue is one too many until that is seen; so
        is a twin that lands late, when the job that it waited for has just been cancelled.
        """
        if each.end is not None or each.submission.state in _WITHOUT_JOB:
            return False
        if each.submission.job_id is None:
            return True
        own = self._world.places[each.cluster].slurm.job(each.submission.job_id)
        return (
            own is not None
            and own.name == each.submission.job_name
            and own.phase in _HOLDING
            and not own.restarts
            and not own.is_late
        )

    def _bound(self, deployment_uid: str, since: float) -> int:
        history = self._bounds.get(deployment_uid, [])
        relevant = [allowed for at, allowed in history if at >= since]
        earlier = [allowed for at, allowed in history if at < since][-1:]
        return max([*relevant, *earlier], default=0)

    def _floor(self, desired: values.Desired, seen: values.Observed, plan: values.Plan) -> None:
        """A rollout or a scale-down takes no replica out of service that is needed for desired - maxUnavailable."""
        doomed = {
            action.replica.uid
            for action in plan.actions
            if isinstance(action, values.StartDrain) and action.drain.reason in _OURS
        }
        spec = desired.deployment.spec
        if not doomed or desired.deployment.deleted_at is not None:
            return
        available = {
            each.uid
            for each in desired.replicas
            if rollout.is_available(
                assess.assess(each, seen, asked=each.drain is not None), spec.min_ready_s, seen.now
            )
        }
        floor = _wanted(desired, plan) - spec.max_unavailable
        if available & doomed and len(available - doomed) < floor:
            raise Violation(
                "available replicas never fall below desired - maxUnavailable because of us",
                f"{len(available)} available, {len(available & doomed)} of them drained, {floor} needed",
            )

    def _pause(self, desired: values.Desired, plan: values.Plan) -> None:
        """While a deployment is paused nobody gives way to a newer revision, and nothing newer is made than what serves."""
        if not desired.deployment.spec.paused or desired.deployment.deleted_at is not None:
            return
        staying = [
            each.revision
            for each in desired.replicas
            if each.end is None and each.drain is None and each.deleted_at is None
        ]
        for action in plan.actions:
            if isinstance(action, values.CreateRevision):
                raise Violation("a pause makes no revision", action.revision.name)
            if isinstance(action, values.StartDrain) and "newer revision" in action.why:
                raise Violation("a pause replaces nobody", action.replica.name)
            if (
                isinstance(action, values.CreateReplica)
                and staying
                and _kept(desired, action.replica.revision) != _kept(desired, min(staying))
            ):
                raise Violation(
                    "a pause makes what serves", f"revision {action.replica.revision}, not {min(staying)}"
                )

    def _same(self, desired: values.Desired, plan: values.Plan) -> None:
        """Nobody gives way to a newer number of the very template that it was made of."""
        same = [each for each in desired.revisions if each.hash == desired.template_hash]
        wanted = _kept(desired, max((each.number for each in same), default=0))
        for action in plan.actions:
            if (
                isinstance(action, values.StartDrain)
                and "newer revision" in action.why
                and wanted is not None
                and _kept(desired, action.replica.revision) == wanted
            ):
                raise Violation("going back to a template replaces nobody that runs", action.replica.name)

    def cancels(self, leader: "Leader", cluster: str, job_ids: Sequence[str]) -> None:
        world = self._world
        for job_id in job_ids:
            job = world.places[cluster].slurm.job(job_id)
            if job is None:
                continue
            agent = world.agents.get(job)
            if agent is not None and self._is_left_alone(agent.engine):
                raise Violation(ELSEWHERE, f"{leader.name} cancels job {job_id} ({job.name})")
            if job in world.foreign:
                raise Violation(
                    "other people's jobs are never touched",
                    f"{leader.name} cancels job {job_id} ({job.name}), which is somebody else's",
                )
            self._cuts_off_nobody(leader, job)
            world.note(f"{leader.name}: scancel {job_id} ({job.name}, {job.phase.name})")

    def _cuts_off_nobody(self, leader: "Leader", job: VirtualJob) -> None:
        """A replica that serves, and is not wanted any more, has until its deadline to finish what it has begun."""
        agent = self._world.agents.get(job)
        if agent is None or agent.engine is None or job.phase is not Phase.RUNNING:
            return
        own_id, deadline_at = self._drains.get(agent.uid, (None, 0.0))
        now = self._world.clock.now()
        heard_at = agent.engine.heard_at
        was_heard = heard_at is not None and now - heard_at <= 2 * self._world.period_s
        is_fine = agent.phase is replica.AgentPhase.READY and was_heard and agent.engine.gone_at is None
        if own_id == str(job.id) and now < deadline_at and is_fine and now - self.lied_at > 900:
            raise Violation(
                "a replica that serves has time to finish",
                f"{leader.name} cancels job {job.id} ({job.name}) {deadline_at - now:.0f} s before its deadline",
            )

    def orders_drain(self, leader: "Leader", uid: str) -> None:
        world = self._world
        if leader is not world.leader:
            return
        requested_at = self._drained_at.get(uid, world.clock.now())
        if world.clock.now() >= requested_at + 5.0 - 0.001:
            return
        for gateway in world.tables.gateways:
            if not gateway.is_cut and uid in gateway.routed():
                raise Violation(
                    "an agent is told to drain when no gateway chooses it any more",
                    f"{gateway.name} still routes to {gateway.routed()[uid].replica}",
                )

    def routes(self, gateway: "Gateway", before: Mapping[str, endpoint.Endpoint]) -> None:
        """A gateway has a new table."""
        after = gateway.routed()
        for each in after.values():
            self._is_servable(gateway, each)
        for uid, each in before.items():
            if uid not in after:
                self._has_reason(gateway, each)

    def _is_servable(self, gateway: "Gateway", each: endpoint.Endpoint) -> None:
        world = self._world
        engine = next(
            (one for one in reversed(world.engines) if one.uid == each.uid and one.port == each.port), None
        )
        if engine is None or engine.proven_at is None:
            raise Violation(
                "no request is routed to a replica that is not yet proven",
                f"{gateway.name}: {each.replica} at {each.host}:{each.port}",
            )
        if world.leader_since is None:
            return
        limit_s = 6 * world.period_s + SLACK_S
        if (
            engine.writes_files
        ):  # the last file may be on its way for long, and the next one is waited for longer
            limit_s += 2 * replica.FILE_LATE_S
        now = world.clock.now()
        gone = min(at for at in (engine.gone_at, engine.frozen_since, now) if at is not None)
        if now - max(gone, world.leader_since) > limit_s:
            raise Violation(
                "no request is routed to a replica that is dead",
                f"{gateway.name}: {each.replica} of job {engine.job_id} answers no more for {now - gone:.0f} s",
            )

    def _has_reason(self, gateway: "Gateway", each: endpoint.Endpoint) -> None:
        """What serves well stays in the table."""
        world = self._world
        agent = next(
            (one for one in world.agents.values() if one.uid == each.uid and one.engine is not None), None
        )
        if agent is None or agent.engine is None or agent.phase is not replica.AgentPhase.READY:
            return
        engine, now = agent.engine, world.clock.now()
        is_heard = engine.heard_at is not None and now - engine.heard_at <= 3 * world.period_s
        is_fine = (
            engine.gone_at is None
            and engine.frozen_since is None
            and now - engine.woken_at > SLACK_S  # what was decided while it stood still may be on its way
            and not engine.is_draining
            and engine.port == each.port
            and is_heard
            and agent.node not in world.cut_nodes
            and agent.job.phase is Phase.RUNNING
            and not agent.job.shown_as
            and each.uid not in self._drained_at
        )
        if is_fine and now - self.lied_at > 600:
            raise Violation(
                "what serves well stays in the table",
                f"{gateway.name}: {each.replica} of job {engine.job_id} was taken out of service",
            )

    # Now and then

    async def sweep(self) -> None:
        world = self._world
        for gateway in world.tables.gateways:
            if gateway.is_cut:
                self._behind.pop(gateway.name, None)
                continue
            if gateway.is_behind(world.leader):
                self._catches_up(gateway)
                continue
            self._behind.pop(gateway.name, None)
            for each in gateway.routed().values():
                self._is_servable(gateway, each)
        self._one_engine()
        self._quiet_serves()
        await self._jobs()

    def _catches_up(self, gateway: "Gateway") -> None:
        now, version = self._world.clock.now(), gateway.table.version
        known, since = self._behind.get(gateway.name, (version, now))
        self._behind[gateway.name] = (version, since if known == version else now)
        if known == version and now - since > CATCH_UP_S:
            raise Violation("gateways get new tables at once", f"{gateway.name} has an older one")

    def _quiet_serves(self) -> None:
        """Whatever happens on the other cluster: started within a while, and then for ever."""
        world = self._world
        proven = [each for each in world.engines if self._is_left_alone(each)]
        if gone := [each for each in proven if each.gone_at is not None]:
            raise Violation(ELSEWHERE, f"the engine of job {gone[0].job_id} ({gone[0].job_name}) is gone")
        if world.clock.now() - world.start > QUIET_START_S and len(proven) != places.QUIET_REPLICAS:
            raise Violation(ELSEWHERE, f"{len(proven)} of {places.QUIET_REPLICAS} replicas serve there")

    def _one_engine(self) -> None:
        world = self._world
        serving: dict[str, str] = {}
        for job, agent in world.agents.items():
            if agent.engine is None or agent.engine.gone_at is not None or agent.node in world.cut_nodes:
                continue
            other = serving.setdefault(agent.uid, str(job.id))
            if other != str(job.id):
                raise Violation(
                    "never two live jobs for one replica",
                    f"jobs {other} and {job.id} ({job.name}) both serve",
                )

    async def _jobs(self) -> None:
        """Live jobs against the rows of the store."""
        world = self._world
        ledgers = {ledger.submission.job_name: ledger for ledger in await world.store.ledgers()}
        deployments = {each.uid for each in (await world.store.list(resources.MODEL_DEPLOYMENT)).items}
        cared_for = {
            each.uid
            for each in (await world.store.list(resources.REPLICA)).items
            if each.owner is not None and each.owner.uid in deployments
        }
        jobs = self._live_jobs()
        by_name: dict[str, list[VirtualJob]] = {}
        for job in jobs:
            by_name.setdefault(job.name, []).append(job)
        for name, same in by_name.items():
            # Where the site takes the singleton away the claim keeps twins apart: see `_one_engine`.
            if sum(job.phase is not Phase.PENDING and job.request.singleton for job in same) > 1:
                raise Violation("never two live jobs for one replica", f"{name}: {[job.id for job in same]}")
        able = {name for name in world.places if self._can_act(name)}
        for job in jobs:
            can_act = world.cluster_of(job) in able
            ledger = ledgers.get(job.name)
            is_owned = (
                ledger is not None
                and ledger.replica_uid in cared_for
                and ledger.tombstoned_at is None
                and ledger.submission.state is not replica.SubmissionState.ENDED
            )
            if is_owned or (job in self.strays and not self._cancels_strays()):
                self._orphaned.pop(job, None)
            elif can_act:
                self._orphaned[job] += 1
                if self._orphaned[job] > ORPHAN_SWEEPS:
                    raise Violation(
                        "never a job of ours without a row after the grace time",
                        f"job {job.id} ({job.name}, {job.phase.name})",
                    )
            if can_act and self._should_be_gone(job):
                self._overdue[job] += 1
                if self._overdue[job] > ORPHAN_SWEEPS:
                    raise Violation("what drains is gone after its deadline", f"job {job.id} ({job.name})")
        for counter in (self._orphaned, self._overdue):
            for job in counter.keys() - set(jobs):
                del counter[job]

    def _live_jobs(self) -> list[VirtualJob]:
        return [
            job
            for place in self._world.places.values()
            for job in place.slurm.jobs()
            if job.phase in _HOLDING and job not in self._world.foreign
        ]

    def _can_act(self, cluster: str) -> bool:
        leader = self._world.leader
        watch = leader.reconciler.fleet.watches.get(cluster) if leader is not None else None
        return watch is not None and watch.is_current and not watch.braked

    def _should_be_gone(self, job: VirtualJob) -> bool:
        agent = self._world.agents.get(job)
        own_id, deadline_at = self._drains.get(agent.uid, (None, 0.0)) if agent is not None else (None, 0.0)
        return own_id == str(job.id) and self._world.clock.now() > deadline_at + drain.AFTER_DEADLINE_S

    def _cancels_strays(self) -> bool:
        leader = self._world.leader
        watch = leader.reconciler.fleet.watches.get("main") if leader is not None else None
        return watch is not None and watch.site.orphan_policy is site.OrphanPolicy.CANCEL

    async def unsettled(self) -> str:
        """Why the world is not yet as everybody wants it; "" when it is."""
        world = self._world
        listing = await world.store.list(resources.MODEL_DEPLOYMENT)
        wanted = 0
        for each in listing.items:
            if each.deleted_at is not None:
                return f"{each.name} is still being deleted"
            conditions = {one["type"]: one for one in each.status.get("conditions", ())}
            ready = conditions.get("Ready", {"status": "Unknown", "reason": "NotLookedYet", "message": ""})
            if ready["status"] != "True" or each.status.get("observedGeneration") != each.generation:
                return f"{each.name} is not ready: {ready['reason']} {ready['message']}"
            if each.status.get("readyReplicas") != rollouts.wanted(each.spec, each.status):
                return f"{each.name} has {each.status.get('readyReplicas')} ready replicas of {rollouts.wanted(each.spec, each.status)}"
            wanted += rollouts.wanted(each.spec, each.status)
        jobs = [job for job in self._live_jobs() if self._is_ours(job)]
        if len(jobs) != wanted:
            return f"{len(jobs)} jobs for {wanted} replicas: {[(job.id, job.name) for job in jobs]}"
        for gateway in world.tables.gateways:
            if len(gateway.routed()) != wanted:
                return f"{gateway.name} routes to {len(gateway.routed())} of {wanted} replicas"
        return ""

    def _is_ours(self, job: VirtualJob) -> bool:
        parts = ids.parse_job_name(job.name)
        is_ours = parts is not None and parts.installation == self._world.installation
        return is_ours and (job not in self.strays or self._cancels_strays())
