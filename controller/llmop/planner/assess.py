"""How is one replica? From its record, its job and its heartbeat to a phase, whether it is routed, and whether it is over.

The table of phases, first match wins:

| Slurm (complete snapshot)          | heartbeat           | phase                     | routed            |
|------------------------------------|---------------------|---------------------------|-------------------|
| none, intent unresolved            | -                   | Submitting                | no                |
| PENDING                            | -                   | Pending or Blocked        | no                |
| SUSPENDED                          | any                 | Suspended                 | no                |
| COMPLETING, terminal               | any                 | Ended                     | no                |
| any                                | draining            | Draining                  | nothing new       |
| CONFIGURING, RUNNING               | none since start    | Starting                  | no                |
| RUNNING                            | loading             | Loading                   | no                |
| RUNNING                            | ready               | Ready                     | yes               |
| RUNNING                            | older than T1/T2/T3 | Suspect / Unreachable     | yes / no          |
| unexplained absence                | fresh               | OrphanAlive               | yes               |
| no snapshot                        | any                 | as before                 | as before         |
| a word nobody knows                | any                 | Unknown                   | as before         |
"""

import dataclasses

from llmop.domain import job, replica
from llmop.domain.job import ObservedJob
from llmop.planner import classify, values

_Phase = replica.Phase


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Assessment:
    """`end` is set when the replica is over and that is not recorded yet. `facts` is the replica with what was just learned.

    `is_routed`: may get requests. `job` is its job in the last complete snapshot, None when there is none.
    `twin` is the number of a newer revision that is the same as its own (`revisions.twins`), 0 where there is none.
    """

    facts: replica.Replica
    phase: replica.Phase
    reason: str = ""
    message: str = ""
    is_routed: bool = False
    job: ObservedJob | None = None
    heartbeat: replica.Heartbeat | None = None
    end: replica.End | None = None
    is_replaced: bool = False  # silent past T3: another one shall take its place
    estimated_start_at: float | None = None
    twin: int = 0

    @property
    def revision(self) -> int:
        """The revision it counts as. `facts.revision` is the one that it was made of, which has to be kept for it."""
        return self.twin or self.facts.revision

    @property
    def is_over(self) -> bool:
        return self.facts.end is not None or self.end is not None

    @property
    def is_pending(self) -> bool:
        """Asks for capacity and has none yet: cancelled for free."""
        return self.phase in (_Phase.SUBMITTING, _Phase.PENDING, _Phase.BLOCKED)


def assess(each: replica.Replica, seen: values.Observed, *, asked: bool) -> Assessment:
    """`asked`: the replica or its deployment was asked to end, so that an end is no failure."""
    if each.end is not None:
        return Assessment(facts=each, phase=_Phase.ENDED, reason=each.end.reason, message=each.end.message)
    view = seen.clusters.get(each.cluster)
    if each.submission.state is replica.SubmissionState.REJECTED:
        end = replica.End(reason=replica.EndReason.REJECTED, at=seen.now, message=each.submission.message)
        return Assessment(facts=each, phase=_Phase.ENDED, reason=end.reason, message=end.message, end=end)
    if each.submission.state in replica.UNRESOLVED or each.submission.job_id is None:
        return Assessment(
            facts=each,
            phase=_Phase.SUBMITTING,
            reason=_submitting_reason(each.submission),
            message=each.submission.message,
        )
    own_job = _job_of(each, view)
    heartbeat = _heartbeat_of(each, seen)
    if own_job is not None and heartbeat is not None and heartbeat.restart_count < own_job.restart_count:
        # Slurm has put the job back into the queue since: what that start said is void.
        each, heartbeat = _without_engine(each), None
    if own_job is not None and heartbeat is not None and view is not None:
        own_job = _since_started(each, own_job, heartbeat, view)
    if own_job is not None and own_job.state.is_terminal:
        return _ended(each, own_job, seen, heartbeat, asked=asked)
    if own_job is None and view is not None and _must_show(each, view):
        return _absent(each, view, seen, heartbeat, asked=asked)
    if own_job is not None:
        each = _with_job(each, own_job)
    return _alive(each, own_job, heartbeat, seen)


def _submitting_reason(submission: replica.Submission) -> str:
    if submission.retry_at is not None:
        return "SubmissionRefused"
    if submission.attempt_at is None:
        return "WaitingToSubmit"
    return "SubmissionUnresolved" if submission.state is replica.SubmissionState.UNKNOWN else "Submitting"


def _heartbeat_of(each: replica.Replica, seen: values.Observed) -> replica.Heartbeat | None:
    """The last heartbeat of this replica's own job.

    After a restart of the controller the stored readiness counts as a heartbeat of that moment: agents need a while to find us.
    """
    heartbeat = seen.heartbeats.get(each.uid)
    if heartbeat is not None and heartbeat.job_id == each.submission.job_id:
        return heartbeat
    if each.ready_at is None or each.ready_at > seen.controller_since:
        return None
    return replica.Heartbeat(
        replica_uid=each.uid,
        job_id=each.submission.job_id or "",
        restart_count=each.submission.claimed_restart or 0,
        phase=replica.AgentPhase.READY,
        received_at=seen.controller_since,
        node=each.node,
        host=each.host,
        port=each.port,
        engine_restarts=each.engine_restarts,
        by_file=each.uid in seen.writers,
    )


def _job_of(each: replica.Replica, view: values.ClusterView | None) -> job.ObservedJob | None:
    if view is None:
        return None
    for candidate in view.jobs.get(each.submission.job_name, ()):
        if candidate.job_id == each.submission.job_id:
            return candidate
    return None


def _must_show(each: replica.Replica, view: values.ClusterView) -> bool:
    """A complete snapshot that began after the job id was learned cannot miss a job that exists; unless so many are missing
    that the snapshot itself is in doubt.
    """
    resolved_at = each.submission.resolved_at
    return (
        view.is_current
        and not view.brake
        and view.snapshot_started_at is not None
        and resolved_at is not None
        and view.snapshot_started_at > resolved_at
    )


_SILENT = (job.JobState.PENDING, job.JobState.SUSPENDED)


def _since_started(
    each: replica.Replica, own_job: job.ObservedJob, heartbeat: replica.Heartbeat, view: values.ClusterView
) -> job.ObservedJob:
    """A job that the snapshot shows waiting, or frozen, runs when its agent was heard after that snapshot began.

    When a file was written nobody knows: before the job was frozen, maybe. Then it counts when the replica became ready.
    """
    if own_job.state not in _SILENT or heartbeat.phase is replica.AgentPhase.ENDED:
        return own_job
    heard_at = heartbeat.received_at if not heartbeat.by_file else each.ready_at
    if view.snapshot_started_at is None or heard_at is None or heard_at <= view.snapshot_started_at:
        return own_job
    return dataclasses.replace(
        own_job, state=job.JobState.RUNNING, pending=None, reason="", explanation="", started_at=None
    )


def _without_engine(each: replica.Replica) -> replica.Replica:
    return dataclasses.replace(each, ready_at=None, host="", port=0)


def _with_job(each: replica.Replica, own_job: job.ObservedJob) -> replica.Replica:
    has_started = own_job.state not in (job.JobState.PENDING, job.JobState.HELD, job.JobState.REQUEUED)
    if not has_started:
        each = _without_engine(each)
    return replica.learn(
        each,
        started_at=(own_job.started_at or each.started_at) if has_started else None,
        ends_at=own_job.ends_at if has_started else None,
        node=(own_job.node or each.node) if has_started else "",
        was_running=each.was_running or own_job.state is job.JobState.RUNNING,
        missing_since=None,
    )


def _ended(
    each: replica.Replica,
    own_job: job.ObservedJob,
    seen: values.Observed,
    heartbeat: replica.Heartbeat | None,
    *,
    asked: bool,
) -> Assessment:
    own_record = seen.exits.get(each.uid) or (heartbeat.end if heartbeat is not None else None)
    end = classify.given_up(each, classify.end_of(own_job, own_record, asked=asked, now=seen.now))
    facts = dataclasses.replace(_with_job(each, own_job), ready_at=None, missing_since=None)
    return Assessment(
        facts=facts,
        phase=_Phase.ENDED,
        reason=end.reason,
        message=end.message,
        job=own_job,
        heartbeat=heartbeat,
        end=end,
    )


def _absent(
    each: replica.Replica,
    view: values.ClusterView,
    seen: values.Observed,
    heartbeat: replica.Heartbeat | None,
    *,
    asked: bool,
) -> Assessment:
    """The job has left the queue: explained by its own record or by accounting, else believed only when seen twice."""
    own_record = seen.exits.get(each.uid) or (heartbeat.end if heartbeat is not None else None)
    if own_record is not None:
        return _over(each, dataclasses.replace(own_record, node=own_record.node or each.node), heartbeat)
    name = each.submission.job_name
    if view.accounting and name not in view.history:
        return _waiting_for_truth(each, heartbeat, seen, "the accounting has not been asked yet")
    for past in view.history.get(name, ()):
        if past.job_id == each.submission.job_id and past.state.is_terminal:
            return _over(each, classify.end_of(past, None, asked=asked, now=seen.now), heartbeat)
    if asked and not _is_fresh(heartbeat, seen):
        return _over(
            each,
            replica.End(
                reason=replica.EndReason.DRAINED, at=seen.now, node=each.node, message="ended as asked"
            ),
            heartbeat,
        )
    if (
        each.missing_since is None
        or view.snapshot_started_at is None
        or view.snapshot_started_at < each.missing_since
        or view.snapshot_taken_at == each.missing_since
    ):
        return _waiting_for_truth(each, heartbeat, seen, "the job was missing in one snapshot")
    if _is_fresh(heartbeat, seen):
        shown = _alive(each, None, heartbeat, seen)
        if shown.phase in (_Phase.READY, _Phase.SUSPECT):
            return dataclasses.replace(
                shown,
                facts=dataclasses.replace(shown.facts, missing_since=each.missing_since),
                phase=_Phase.ORPHAN_ALIVE,
                reason="JobLost",
                message="Slurm has lost the job, but the engine still serves",
            )
        return shown
    return _over(each, classify.lost(seen.now, each.node), heartbeat)


def _over(each: replica.Replica, end: replica.End, heartbeat: replica.Heartbeat | None) -> Assessment:
    facts = dataclasses.replace(each, ready_at=None)
    end = classify.given_up(each, end)
    return Assessment(
        facts=facts, phase=_Phase.ENDED, reason=end.reason, message=end.message, heartbeat=heartbeat, end=end
    )


def _waiting_for_truth(
    each: replica.Replica, heartbeat: replica.Heartbeat | None, seen: values.Observed, why: str
) -> Assessment:
    view = seen.clusters[each.cluster]
    shown = _alive(each, None, heartbeat, seen)
    missing_since = each.missing_since if each.missing_since is not None else view.snapshot_taken_at
    return dataclasses.replace(
        shown,
        facts=dataclasses.replace(shown.facts, missing_since=missing_since),
        reason="JobMissing",
        message=why,
    )


def _is_fresh(heartbeat: replica.Heartbeat | None, seen: values.Observed) -> bool:
    return heartbeat is not None and seen.now - heartbeat.due_from <= seen.timing.unreachable_s


def _alive(
    each: replica.Replica,
    own_job: job.ObservedJob | None,
    heartbeat: replica.Heartbeat | None,
    seen: values.Observed,
) -> Assessment:
    """The rows for a job that is, as far as anybody knows, not over."""
    shown = (
        (_row_of_job(own_job) if own_job is not None else None)
        or _row_of_drain(each, heartbeat)
        or _row_of_unknown(each, own_job, heartbeat, seen)
        or _row_of_silence(each, own_job, heartbeat, seen)
        or _row_of_heartbeat(heartbeat, seen)
    )
    kept = (_Phase.READY, _Phase.SUSPECT, _Phase.UNREACHABLE, _Phase.SUSPENDED)
    facts = _with_heartbeat(each, heartbeat, seen, is_ready=shown.is_routed or shown.phase in kept)
    is_unheard = heartbeat is None and own_job is not None and own_job.state is job.JobState.RUNNING
    facts = replica.learn(
        facts,
        blocked_since=(facts.blocked_since or seen.now) if shown.phase is _Phase.BLOCKED else None,
        unheard_since=(facts.unheard_since or seen.now) if is_unheard else None,
    )
    waits = own_job is not None and own_job.state is job.JobState.PENDING
    return Assessment(
        facts=facts,
        phase=shown.phase,
        reason=shown.reason,
        message=shown.message,
        is_routed=shown.is_routed and facts.drain is None and bool(facts.host),
        job=own_job,
        heartbeat=heartbeat,
        is_replaced=shown.is_replaced and not seen.is_blind,
        estimated_start_at=own_job.started_at if waits and own_job is not None else None,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    phase: replica.Phase
    reason: str = ""
    message: str = ""
    is_routed: bool = False
    is_replaced: bool = False


def _row_of_job(own_job: job.ObservedJob) -> _Row | None:
    """What Slurm says rules: the job ends, waits or is frozen."""
    if own_job.state is job.JobState.COMPLETING:
        return _Row(_Phase.ENDED, "Completing", "the job is over, its node is being cleaned")
    if own_job.state in (job.JobState.PENDING, job.JobState.REQUEUED, job.JobState.HELD):
        blocked = own_job.state is job.JobState.HELD or own_job.pending in _BLOCKED
        phase = _Phase.BLOCKED if blocked else _Phase.PENDING
        return _Row(phase, own_job.reason.split(",")[0], own_job.explanation or own_job.reason)
    if own_job.state is job.JobState.SUSPENDED:
        return _Row(
            _Phase.SUSPENDED, "Suspended", "Slurm has suspended the job: its memory is held, nothing answers"
        )
    return None


_BLOCKED = (job.PendingClass.NEVER, job.PendingClass.HELD, job.PendingClass.HELD_BY_ADMIN)


def _row_of_drain(each: replica.Replica, heartbeat: replica.Heartbeat | None) -> _Row | None:
    if heartbeat is not None and heartbeat.phase is replica.AgentPhase.ENDED:
        return _Row(_Phase.ENDED, "Completing", "the agent has ended, Slurm has not said so yet")
    if each.drain is not None:
        return _Row(_Phase.DRAINING, each.drain.reason, each.drain.message)
    if heartbeat is not None and heartbeat.phase is replica.AgentPhase.DRAINING:
        if heartbeat.ending is replica.EndReason.TERMINATED:
            return _Row(_Phase.DRAINING, heartbeat.ending, "the job was told to end by SIGTERM, not by llmop")
        return _Row(_Phase.DRAINING, replica.DrainReason.WALLTIME)
    return None


def _row_of_unknown(
    each: replica.Replica,
    own_job: job.ObservedJob | None,
    heartbeat: replica.Heartbeat | None,
    seen: values.Observed,
) -> _Row | None:
    """A word that nobody knows says nothing: whether it is routed follows from its heartbeat alone."""
    if own_job is None or own_job.state is not job.JobState.UNKNOWN:
        return None
    heard = _row_of_silence(each, own_job, heartbeat, seen) or _row_of_heartbeat(heartbeat, seen)
    words = f"Slurm says {own_job.state_text}, which llmop does not know"
    return _Row(_Phase.UNKNOWN, "UnknownState", words, is_routed=heard.is_routed)


def _row_of_silence(
    each: replica.Replica,
    own_job: job.ObservedJob | None,
    heartbeat: replica.Heartbeat | None,
    seen: values.Observed,
) -> _Row | None:
    if heartbeat is not None:
        return None
    if each.ready_at is not None:
        return _Row(_Phase.UNREACHABLE, "NoHeartbeat", "no heartbeat since the controller started")
    if own_job is None and each.phase is not None:
        if each.phase is _Phase.SUBMITTING or _is_too_young_to_be_seen(each, seen):
            return _Row(_Phase.PENDING, "JustSubmitted", "submitted, not seen in the queue yet")
        return _Row(each.phase, "Stale", "no complete snapshot of the cluster yet")
    return _Row(_Phase.STARTING, "Starting", "the job runs, its agent has not reported yet")


def _is_too_young_to_be_seen(each: replica.Replica, seen: values.Observed) -> bool:
    """No snapshot can have shown its job yet: that is no staleness, and the words stay the same from pass to pass."""
    view, resolved_at = seen.clusters.get(each.cluster), each.submission.resolved_at
    return (
        each.phase is _Phase.PENDING
        and view is not None
        and not view.problem
        and resolved_at is not None
        and resolved_at >= seen.controller_since
        and (view.snapshot_started_at is None or view.snapshot_started_at <= resolved_at)
    )


def _row_of_heartbeat(heartbeat: replica.Heartbeat | None, seen: values.Observed) -> _Row:
    assert heartbeat is not None, "_row_of_silence answers without one"
    silent_s = seen.now - heartbeat.due_from
    if silent_s > seen.timing.replaced_s:
        return _Row(
            _Phase.UNREACHABLE,
            "NoHeartbeat",
            "the agent has been silent for too long and is being replaced",
            is_replaced=True,
        )
    if silent_s > seen.timing.unreachable_s:
        return _Row(_Phase.UNREACHABLE, "NoHeartbeat", "the agent does not report")
    if heartbeat.phase is replica.AgentPhase.READY:
        if silent_s > seen.timing.suspect_s:
            return _Row(_Phase.SUSPECT, "LateHeartbeat", "the agent reports late", is_routed=True)
        return _Row(_Phase.READY, is_routed=True)
    if heartbeat.phase is replica.AgentPhase.UNHEALTHY:
        return _Row(_Phase.LOADING, "Unhealthy", heartbeat.detail or "the engine does not answer its probes")
    return _Row(_Phase.LOADING, "Loading", heartbeat.detail)


def _with_heartbeat(
    each: replica.Replica, heartbeat: replica.Heartbeat | None, seen: values.Observed, *, is_ready: bool
) -> replica.Replica:
    if heartbeat is None:
        return each
    ready_at = each.ready_at
    if heartbeat.phase is not replica.AgentPhase.READY and heartbeat.phase is not replica.AgentPhase.DRAINING:
        ready_at = None
    elif is_ready and ready_at is None:
        ready_at = seen.now
    return replica.learn(
        each,
        ready_at=ready_at,
        host=heartbeat.host or each.host,
        port=heartbeat.port or each.port,
        node=heartbeat.node or each.node,
        engine_restarts=heartbeat.engine_restarts,
        # A heartbeat of the claimed job is proof that it runs, also while Slurm cannot be asked.
        was_running=True,
    )
