"""The judge of the simulation is not blind: with a decision of the planner spoiled, a world comes soon in which a rule is broken."""

import dataclasses
from collections.abc import Callable, Sequence

import pytest

from llmop.domain import endpoint, replica
from llmop.planner import assess, compute, drain, engine_load, orphans, revisions, rollout, routes, values
from llmop.planner.autoscale import moves, remembered
from llmop.testing import leaders, simulation

SEEDS = 40
# Where little goes wrong the planner's own decisions are what is seen; what others do needs a wilder world.
CALM = simulation.Setting(hours=2.0, fault_every_s=200, user_every_s=60)
WILD = simulation.Setting(hours=2.0, fault_every_s=12, user_every_s=40)

Patch = pytest.MonkeyPatch


def tells_agents_before_gateways(patch: Patch) -> None:
    def order(
        each: assess.Assessment, asked: replica.Drain, seen: values.Observed
    ) -> tuple[values.Action, ...]:
        return (values.OrderDrain(replica=each.facts, deadline_s=max(0.0, asked.deadline_at - seen.now)),)

    patch.setattr(drain, "_order", order)


def cancels_what_serves(patch: Patch) -> None:
    progress = drain.progress

    def spoiled(each: assess.Assessment, seen: values.Observed) -> drain.Progress:
        return progress(dataclasses.replace(each, facts=dataclasses.replace(each.facts, ready_at=None)), seen)

    patch.setattr(drain, "progress", spoiled)


def waits_for_ever(patch: Patch) -> None:
    progress = drain.progress

    def spoiled(each: assess.Assessment, seen: values.Observed) -> drain.Progress:
        decided = progress(each, seen)
        late = [each for each in decided.actions if "deadline" in getattr(each, "why", "")]
        return drain.Progress() if late else decided

    patch.setattr(drain, "progress", spoiled)


def drains_below_the_floor(patch: Patch) -> None:
    step = rollout.step

    def spoiled(
        replicas: Sequence[assess.Assessment], newest: int, bounds: rollout.Bounds, now: float
    ) -> rollout.Step:
        return step(replicas, newest, dataclasses.replace(bounds, max_unavailable=bounds.replicas), now)

    patch.setattr(rollout, "step", spoiled)


def makes_one_too_many(patch: Patch) -> None:
    step = rollout.step

    def spoiled(
        replicas: Sequence[assess.Assessment], newest: int, bounds: rollout.Bounds, now: float
    ) -> rollout.Step:
        return step(replicas, newest, dataclasses.replace(bounds, max_surge=bounds.max_surge + 1), now)

    patch.setattr(rollout, "step", spoiled)


def takes_all_jobs_for_its_own(patch: Patch) -> None:
    parse = orphans.ids.parse_job_name

    def spoiled(name: str) -> object:
        parts = parse(name)
        return None if parts is None else dataclasses.replace(parts, installation=simulation.INSTALLATION)

    patch.setattr(orphans.ids, "parse_job_name", spoiled)


def routes_to_the_silent(patch: Patch) -> None:
    def spoiled(each: assess.Assessment) -> endpoint.EndpointState | None:
        return None if each.is_over or each.facts.ready_at is None else endpoint.EndpointState.READY

    patch.setattr(routes, "_state", spoiled)


def forgets_replicas_of_the_deleted(patch: Patch) -> None:
    plan = compute.plan

    def spoiled(desired: values.Desired, seen: values.Observed, names: values.Names) -> values.Plan:
        planned = plan(desired, seen, names)
        if desired.deployment.deleted_at is None or not all(each.drain for each in desired.replicas):
            return planned
        return dataclasses.replace(planned, actions=(*planned.actions, values.FinishDeletion()))

    patch.setattr(compute, "plan", spoiled)


def ends_jobs_of_that_number_everywhere(patch: Patch) -> None:
    cancel = leaders.TappedCluster.cancel

    async def spoiled(self: leaders.TappedCluster, job_ids: Sequence[str]) -> str:
        leader = self._leader
        for watch in leader.reconciler.fleet.watches.values():
            if watch.cluster is not self:
                await cancel(watch.cluster, job_ids)  # type: ignore[arg-type]
        return await cancel(self, job_ids)

    patch.setattr(leaders.TappedCluster, "cancel", spoiled)


def gives_up_at_once(patch: Patch) -> None:
    def spoiled(history: Sequence[tuple[float, int]], window_s: float) -> int:
        return history[-1][1]

    patch.setattr(remembered, "within", spoiled)


def goes_beyond_the_bounds(patch: Patch) -> None:
    patch.setattr(moves, "bounded", lambda wanted, desired, floor=None: desired)


def forgets_the_caches(patch: Patch) -> None:
    patch.setattr(engine_load, "hold", lambda *_: engine_load.Hold())


def takes_numbers_for_templates(patch: Patch) -> None:
    patch.setattr(revisions, "twins", lambda kept: {})


@pytest.mark.parametrize(
    ("spoil", "rule", "setting"),
    [
        (tells_agents_before_gateways, "an agent is told to drain when no gateway chooses it any more", CALM),
        (cancels_what_serves, "a replica that serves has time to finish", CALM),
        (waits_for_ever, "what drains is gone after its deadline", CALM),
        (
            drains_below_the_floor,
            "available replicas never fall below desired - maxUnavailable because of us",
            CALM,
        ),
        (makes_one_too_many, "never more jobs than desired + surge", CALM),
        (takes_all_jobs_for_its_own, "other people's jobs are never touched", WILD),
        (routes_to_the_silent, "no request is routed to a replica that is dead", CALM),
        (
            ends_jobs_of_that_number_everywhere,
            "what goes wrong on one cluster touches nothing on another",
            CALM,
        ),
        (gives_up_at_once, "what the load asks for is not given up at once", CALM),
        (forgets_the_caches, "replicas that full caches need are not given up", CALM),
        (goes_beyond_the_bounds, "the load asks for no more and no fewer replicas than may be", CALM),
        (takes_numbers_for_templates, "going back to a template replaces nobody that runs", CALM),
        (forgets_replicas_of_the_deleted, "never a job of ours without a row after the grace time", CALM),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_spoiled_decision_is_seen(
    spoil: Callable[[Patch], None], rule: str, setting: simulation.Setting, monkeypatch: Patch
) -> None:
    spoil(monkeypatch)
    broken: list[str] = []
    for seed in range(SEEDS):
        found = simulation.simulate(seed, setting).violations
        broken += [words.partition(":")[0] for _, words, _ in found]
        if rule in broken:
            print(f"       seen at seed {seed}: {broken}")
            return
    raise AssertionError(f"no world of {SEEDS} breaks the rule '{rule}'; they broke {sorted(set(broken))}")
