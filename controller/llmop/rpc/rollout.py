"""RolloutService: imperative verbs on deployments."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmop.api.v1 import rollout_pb2, rollout_pb2_grpc
from llmop.clock import Clock
from llmop.domain import resources, rollouts, times
from llmop.domain.errors import Conflict, NeedsUser
from llmop.manifest import merge, revisions
from llmop.rpc import convert
from llmop.rpc.errors import BadRequest
from llmop.rpc.loads import LoadSink
from llmop.rpc.writing import Change, Writer
from llmop.store.interface import Store

_STATES = {
    rollouts.State.COMPLETE: rollout_pb2.StatusResponse.STATE_COMPLETE,
    rollouts.State.WAITING: rollout_pb2.StatusResponse.STATE_WAITING,
    rollouts.State.STUCK: rollout_pb2.StatusResponse.STATE_STUCK,
}
PAUSED = "spec.paused"


class RolloutServicer(rollout_pb2_grpc.RolloutServiceServicer):
    def __init__(self, store: Store, clock: Clock, writer: Writer, loads: LoadSink) -> None:
        self._store = store
        self._clock = clock
        self._writer = writer
        self._loads = loads

    async def Scale(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.ScaleRequest, context: Any
    ) -> rollout_pb2.ScaleResponse:
        outcome = await self._writer.scale(
            *_named(request),
            request.replicas,
            current_replicas=request.current_replicas if request.HasField("current_replicas") else None,
            resource_version=request.resource_version,
            dry_run=request.dry_run,
        )
        assert outcome.live is not None
        return rollout_pb2.ScaleResponse(
            object=convert.to_object(outcome.resource),
            previous_replicas=rollouts.wanted(outcome.live.spec, outcome.live.status),
        )

    async def Status(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.StatusRequest, context: Any
    ) -> rollout_pb2.StatusResponse:
        deployment = await self._store.get(resources.MODEL_DEPLOYMENT, *_named(request))
        newest = int(deployment.status.get("updateRevision") or 0)
        if request.revision and request.revision != newest:
            raise NeedsUser(
                "OtherRevision",
                f"desired revision ({request.revision}) is different from the newest one ({newest})",
            )
        found = rollouts.progress(
            deployment.name,
            deployment.generation,
            deployment.spec,
            deployment.status,
            is_deleting=deployment.deleted_at is not None,
        )
        return rollout_pb2.StatusResponse(
            state=_STATES[found.state], message=found.message, object=convert.to_object(deployment)
        )

    async def History(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.HistoryRequest, context: Any
    ) -> rollout_pb2.HistoryResponse:
        deployment = await self._store.get(resources.MODEL_DEPLOYMENT, *_named(request))
        kept = await self._revisions(deployment)
        words = revisions.causes([(_number(each), each.spec["template"]) for each in kept])
        return rollout_pb2.HistoryResponse(
            revisions=[
                rollout_pb2.RolloutRevision(
                    number=_number(each),
                    name=each.name,
                    creation_time=convert.timestamp(each.created_at or None),
                    change_cause=cause,
                    template_json=convert.to_json(each.spec["template"]),
                )
                for each, cause in zip(kept, words, strict=True)
            ]
        )

    async def Undo(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.UndoRequest, context: Any
    ) -> rollout_pb2.UndoResponse:
        if request.to_revision < 0:
            raise BadRequest(f"to_revision: must be 0 (= the one before) or more, got {request.to_revision}")
        kept = await self._revisions(await self._store.get(resources.MODEL_DEPLOYMENT, *_named(request)))
        chosen = 0

        def undone(live: resources.Resource) -> tuple[resources.Resource, tuple[str, ...]]:
            nonlocal chosen
            if live.spec.get("paused"):
                raise _paused(live, "undo")
            target = _target(live, kept, request.to_revision)
            chosen = _number(target)
            return revisions.rolled_back(live, target.spec["template"])

        outcome = await self._change(request, undone, "undo")
        return rollout_pb2.UndoResponse(
            object=convert.to_object(outcome.resource), revision=chosen, changed_paths=outcome.changed_paths
        )

    async def Restart(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.RestartRequest, context: Any
    ) -> rollout_pb2.RestartResponse:
        now = times.to_rfc3339(self._clock.now())
        outcome = await self._change(request, restarting(now), "restart")
        return rollout_pb2.RestartResponse(object=convert.to_object(outcome.resource))

    async def Pause(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.PauseRequest, context: Any
    ) -> rollout_pb2.PauseResponse:
        outcome = await self._change(request, pausing(True), "pause")
        return rollout_pb2.PauseResponse(object=convert.to_object(outcome.resource))

    async def Resume(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.ResumeRequest, context: Any
    ) -> rollout_pb2.ResumeResponse:
        outcome = await self._change(request, pausing(False), "resume")
        return rollout_pb2.ResumeResponse(object=convert.to_object(outcome.resource))

    async def Autoscale(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.AutoscaleRequest, context: Any
    ) -> rollout_pb2.AutoscaleResponse:
        wanted = {
            field: getattr(request, name) for name, field in _SCALING_FIELDS.items() if request.HasField(name)
        }
        if request.off == bool(wanted):
            raise BadRequest("give off, or at least one of min_replicas, max_replicas and target")
        outcome = await self._writer.change(
            *_named(request),
            fixing if request.off else autoscaling(wanted),
            verb="autoscale",
            manager=merge.SCALE_MANAGER,
            dry_run=request.dry_run,
        )
        return rollout_pb2.AutoscaleResponse(object=convert.to_object(outcome.resource))

    async def ScalingStatus(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.ScalingStatusRequest, context: Any
    ) -> rollout_pb2.ScalingStatusResponse:
        deployment = await self._store.get(resources.MODEL_DEPLOYMENT, *_named(request))
        decision = self._loads.decision(deployment.uid)
        return rollout_pb2.ScalingStatusResponse(
            object=convert.to_object(deployment),
            scaling=convert.to_scaling(decision) if decision is not None else None,
            engines=[
                convert.to_engine_load(name, load)
                for name, load in sorted(self._loads.engines(deployment).items())
            ],
        )

    async def _change(self, request: Any, change: Change, verb: str) -> Any:
        return await self._writer.change(
            *_named(request), change, verb=verb, manager=merge.ROLLOUT_MANAGER, dry_run=request.dry_run
        )

    async def _revisions(self, deployment: resources.Resource) -> list[resources.Resource]:
        """Those of a deployment, by number."""
        stored = (await self._store.list(resources.REVISION, deployment.namespace)).items
        mine = [
            each
            for each in stored
            if each.owner is not None and each.owner.uid == deployment.uid and _is_readable(each)
        ]
        return sorted(mine, key=_number)


def _named(request: Any) -> tuple[str, str]:
    if not request.name:
        raise BadRequest("name: must not be empty")
    return request.namespace or "default", request.name


def _is_readable(revision: resources.Resource) -> bool:
    spec = revision.spec
    return isinstance(spec.get("revision"), int) and isinstance(spec.get("template"), Mapping)


def _number(revision: resources.Resource) -> int:
    return int(revision.spec["revision"])


def _paused(live: resources.Resource, verb: str) -> NeedsUser:
    return NeedsUser(
        "Paused",
        f'ModelDeployment "{live.name}" is paused: cannot {verb} it; run llmctl rollout resume md/{live.name} first',
    )


def restarting(now: str) -> Change:
    """A new template that says nothing but `now`, RFC 3339 with whole seconds."""

    def change(live: resources.Resource) -> tuple[resources.Resource, tuple[str, ...]]:
        if live.spec.get("paused"):
            raise _paused(live, "restart")
        if live.spec.get("restartedAt") == now:
            raise Conflict(
                f'ModelDeployment "{live.name}" was restarted within this second; wait for the next one'
            )
        changed = {revisions.RESTARTED_AT: now}
        return merge.take(live, changed, manager=merge.ROLLOUT_MANAGER), tuple(changed)

    return change


def pausing(paused: bool) -> Change:
    """Pauses or resumes; raises Conflict where that is done already."""

    def change(live: resources.Resource) -> tuple[resources.Resource, tuple[str, ...]]:
        if bool(live.spec.get("paused")) is paused:
            raise Conflict(f'ModelDeployment "{live.name}" is {"already" if paused else "not"} paused')
        return merge.take(live, {PAUSED: paused}, manager=merge.ROLLOUT_MANAGER), (PAUSED,)

    return change


_SCALING_FIELDS = {
    "min_replicas": f"{merge.SCALING}.minReplicas",
    "max_replicas": f"{merge.SCALING}.maxReplicas",
    "target": f"{merge.SCALING}.metrics",
}


def autoscaling(wanted: Mapping[str, int]) -> Change:
    """Other bounds, or another target of requests in flight; scaling instead of a fixed number where there was one."""

    def change(live: resources.Resource) -> tuple[resources.Resource, tuple[str, ...]]:
        values: dict[str, Any] = dict(wanted)
        if (target := values.get(_SCALING_FIELDS["target"])) is not None:
            values[_SCALING_FIELDS["target"]] = [{"type": "InFlight", "target": target}]
        if "scaling" not in live.spec:
            values[merge.REPLICAS] = None
        return merge.take(live, values, manager=merge.SCALE_MANAGER), tuple(sorted(values))

    return change


def fixing(live: resources.Resource) -> tuple[resources.Resource, tuple[str, ...]]:
    """The number of this moment instead of scaling."""
    if "scaling" not in live.spec:
        raise Conflict(f'ModelDeployment "{live.name}" does not scale by its load')
    present = [path for path in merge.leaves({"spec": live.spec}) if path.startswith(f"{merge.SCALING}.")]
    values: dict[str, Any] = dict.fromkeys(present)
    values[merge.REPLICAS] = rollouts.wanted(live.spec, live.status)
    return merge.take(live, values, manager=merge.SCALE_MANAGER), (merge.REPLICAS, merge.SCALING)


def _target(live: resources.Resource, kept: Sequence[resources.Resource], number: int) -> resources.Resource:
    """Revision `number`; 0 = the newest one whose template differs from the present one."""
    known = ", ".join(str(_number(each)) for each in kept) or "none"
    for each in reversed(kept):
        if number:
            if _number(each) == number:
                return each
        elif revisions.rolled_back(live, each.spec["template"])[1]:
            return each
    if number:
        problem = f'unable to find revision {number} of ModelDeployment "{live.name}"'
    else:
        problem = f'no revision of ModelDeployment "{live.name}" differs from what is there now'
    raise BadRequest(f"{problem}; there are {known}", reason="NoSuchRevision")
