"""The steps of a start, from the job's log and from what the controller says."""

import json

from llmop.api.v1 import resources_pb2
from llmop.cli.bench import startup
from llmop.domain import times
from llmop.rpc import convert

LOG = """\
Lmod: loading python/3.11
2026-11-28T09:00:01.250Z agent: job 17 begins on n1
2026-11-28T09:00:01.300Z agent: engine started on {'http': 40001}
2026-11-28T09:00:02.500Z agent: engine listens on 40001
2026-11-28T09:00:02.750Z agent: ready at n1:40001
2026-11-28T09:09:00.000Z agent: engine started on {'http': 40002}
2026-11-28T09:09:09Z agent: ready again
"""
NINE = 1_795_856_400.0  # 2026-11-28T09:00:00Z


def test_steps_on_the_node_are_those_of_the_first_start() -> None:
    found = {step: round(at - NINE, 3) for step, at in startup.of_log(LOG).items()}
    assert {"running": 1.25, "started": 1.3, "listening": 2.5, "generated": 2.75} == found


def test_the_controller_knows_when_a_replica_was_made_and_ready() -> None:
    item = resources_pb2.Object(status_json=json.dumps({"readyAt": "2026-11-28T09:00:02.900000Z"}))
    item.metadata.creation_time.CopyFrom(convert.timestamp(NINE + 0.02))
    found = {step: round(at - NINE, 3) for step, at in startup.of_replica(item).items()}
    assert {"replica": 0.02, "ready": 2.9} == found
    item.status_json = "{}"
    assert {"replica"} == startup.of_replica(item).keys()


def test_steps_count_from_the_apply_in_order() -> None:
    applied_at = NINE + 0.25
    moments = {"answered": applied_at + 3, "replica": applied_at + 0.02, "other": NINE}
    made = startup.startup("chat", "/i.sif", "17", applied_at, moments)
    assert [("replica", 0.02), ("answered", 3.0)] == list(made.steps.items())
    assert ("17", applied_at) == (made.job, times.from_rfc3339(made.at))


def test_a_copy_is_one_replica_that_is_a_model_of_its_own() -> None:
    manifest = {
        "kind": "ModelDeployment",
        "metadata": {"name": "chat", "labels": {"team": "a"}},
        "spec": {
            "replicas": 5,
            "paused": True,
            "scaling": {"maxReplicas": 3},
            "restartedAt": "x",
            "model": {"name": "chat", "uri": "file:///m"},
        },
    }
    made = startup.copy(manifest, "chat-bench-xyz")
    assert {"name": "chat-bench-xyz", "labels": {"team": "a"}} == made["metadata"]
    assert {"replicas": 1, "model": {"name": "chat-bench-xyz", "uri": "file:///m"}} == made["spec"]
    assert 5 == manifest["spec"]["replicas"]  # type: ignore[index]
