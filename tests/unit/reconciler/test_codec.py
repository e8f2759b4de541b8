"""What the planner writes it reads back as it was."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from llmop.domain import replica, resources
from llmop.planner import values
from llmop.reconciler import codec
from llmop.store import interface
from llmop.testing import builders as make

# Clocks give whole microseconds and the store keeps them: a decision that compares a stored time with a fresh one sees them equal.
_times = st.integers(1_500_000_000_000_000, 2_000_000_000_000_000).map(lambda micros: micros / 1e6)
_maybe = st.none() | _times
_texts = st.text(max_size=20)


@given(
    started_at=_maybe,
    ready_at=_maybe,
    ends_at=_maybe,
    missing_since=_maybe,
    blocked_since=_maybe,
    unheard_since=_maybe,
    drain=st.none()
    | st.builds(
        replica.Drain,
        reason=st.sampled_from(replica.DrainReason),
        requested_at=_times,
        deadline_at=_times,
        message=_texts,
    ),
    was_running=st.booleans(),
    engine_restarts=st.integers(0, 9),
    phase=st.sampled_from(replica.Phase),
    message=_texts,
)
def test_a_replica(message: str, **fields: object) -> None:
    each = make.a_replica(1, **fields)
    shown = values.ReplicaStatus(
        replica=each, phase=each.phase or replica.Phase.READY, reason="", message=message, is_ready=True
    )
    owner = resources.Resource(kind=resources.MODEL_DEPLOYMENT, name=make.DEPLOYMENT, uid="d")
    stored = dataclasses.replace(codec.new_replica(each, owner), status=codec.replica_status(shown))
    if each.drain is not None:
        stored = codec.with_drain(stored, each.drain)
    ledger = interface.Ledger(
        replica_uid=each.uid,
        namespace=each.namespace,
        replica_name=each.name,
        cluster=each.cluster,
        submission=each.submission,
        secrets=interface.Secrets(api_key="", agent_token=""),
    )
    back = codec.replica_of(stored, ledger)
    for field in dataclasses.fields(replica.Replica):
        assert getattr(each, field.name) == getattr(back, field.name), field.name


@given(
    crashes=st.integers(0, 99),
    crash_revision=st.integers(0, 99),
    budget_spent=st.integers(0, 99),
    stalled_reason=_texts,
    stalled_message=_texts,
    stalled_generation=st.integers(0, 99),
    retry_at=_maybe,
    budget_since=_maybe,
    stalled_until=_maybe,
    current_revision=st.integers(0, 99),
)
def test_a_record(**fields: object) -> None:
    record = values.Record(**fields)  # type: ignore[arg-type]
    status = values.DeploymentStatus(
        replicas=0,
        ready=0,
        updated=0,
        pending=0,
        available=0,
        update_revision=1,
        record=record,
    )
    back = codec.record_of(codec.deployment_status(status, 1, ""))
    assert record == back
