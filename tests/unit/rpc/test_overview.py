"""What operators are shown, and what they are not."""

import json
from typing import Any

import pytest

from llmop.domain import resources, times
from llmop.domain.endpoint import NextReplica, Stage
from llmop.planner.autoscale import Load
from llmop.rpc import overview

NOW = 1_800_000_000.0
AT = times.to_rfc3339


def deployment(name: str = "chat", namespace: str = "default", **fields: Any) -> resources.Resource:
    spec = {"model": {"uri": "hf://secret/place", "name": "llama"}, "runtime": "tgi", "replicas": 2}
    return resources.Resource(
        kind=resources.MODEL_DEPLOYMENT,
        name=name,
        namespace=namespace,
        uid=f"uid-{namespace}-{name}",
        created_at=NOW - 600,
        spec=spec | fields.pop("spec", {}),
        **fields,
    )


def replica(
    name: str, of: resources.Resource, created_at: float = NOW - 300, **status: Any
) -> resources.Resource:
    return resources.Resource(
        kind=resources.REPLICA,
        name=name,
        namespace=of.namespace,
        uid=f"uid-{name}",
        created_at=created_at,
        owner=resources.Owner(kind=of.kind, name=of.name, uid=of.uid),
        spec={"deployment": of.name, "revision": 1, "cluster": "hpc", "drain": None},
        status=status,
    )


def cluster(**status: Any) -> resources.Resource:
    return resources.Resource(
        kind=resources.CLUSTER, name="hpc", spec={"driver": "slurm", "sharedDir": "/shared"}, status=status
    )


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def shown(
    deployments: list[resources.Resource],
    replicas: list[resources.Resource] | None = None,
    clusters: list[resources.Resource] | None = None,
    **live: Any,
) -> dict[str, Any]:
    given = {"loads": {}, "following": {}, "seen_at": {}, "now": NOW} | live
    return overview.overview(deployments, replicas or [], clusters or [], **given)


def test_a_deployment_is_shown_with_its_replicas_its_load_and_what_it_did() -> None:
    step = {
        "time": AT(NOW - 60),
        "from": 1,
        "to": 2,
        "reason": "LoadRose",
        "message": "more",
        "inputs": {"x": 1},
    }
    of = deployment(
        spec={"scaling": {"minReplicas": 0, "maxReplicas": 4}},
        status={
            "readyReplicas": 1,
            "scaling": {"desiredReplicas": 2},
            "scalingHistory": [step],
            "pending": {"estimatedStartTime": AT(NOW + 900), "source": "Slurm"},
            "conditions": [condition("Ready", "False", "QueuePending", "waits for Priority")],
        },
    )
    ready = replica(
        "chat-1",
        of,
        phase="Ready",
        ready=True,
        jobId="17",
        node="n1",
        restarts=1,
        startedAt=AT(NOW - 200),
        readyAt=AT(NOW - 100),
        endsAt=AT(NOW + 3600),
    )
    waiting = replica(
        "chat-2", of, NOW - 50, phase="Pending", reason="Priority", estimatedStartTime=AT(NOW + 900)
    )
    (found,) = shown(
        [of],
        [waiting, ready],
        loads={"default/chat": Load(at=1.0, in_flight=7, queued=2, tokens_per_s=41.26)},
    )["deployments"]
    replicas = found.pop("replicas")

    assert {
        "namespace": "default",
        "name": "chat",
        "model": "llama",
        "runtime": "tgi",
        "ready": 1,
        "desired": 2,
        "is_ready": False,
        "is_stalled": False,
        "reason": "QueuePending",
        "message": "waits for Priority",
        "next": {"starts_at": NOW + 900, "source": "Slurm", "ready_at": None},
        "load": {"in_flight": 7, "queued": 2, "tokens_per_second": 41.3, "is_whole": True},
        "scaling": {
            "min": 0,
            "max": 4,
            "steps": [{"at": NOW - 60, "from": 1, "to": 2, "reason": "LoadRose", "message": "more"}],
        },
    } == found
    assert [
        {
            "name": "chat-1",
            "cluster": "hpc",
            "phase": "Ready",
            "is_ready": True,
            "reason": "",
            "job_id": "17",
            "node": "n1",
            "restarts": 1,
            "created_at": NOW - 300,
            "estimated_start_at": None,
            "started_at": NOW - 200,
            "ready_at": NOW - 100,
            "ends_at": NOW + 3600,
            "ended_at": None,
        },
        {
            "name": "chat-2",
            "cluster": "hpc",
            "phase": "Pending",
            "is_ready": False,
            "reason": "Priority",
            "job_id": None,
            "node": "",
            "restarts": 0,
            "created_at": NOW - 50,
            "estimated_start_at": NOW + 900,
            "started_at": None,
            "ready_at": None,
            "ends_at": None,
            "ended_at": None,
        },
    ] == replicas


def test_nothing_secret_and_no_text_of_others_goes_out() -> None:
    hidden = "hunter2"
    of = deployment(
        spec={
            "env": {"TOKEN": hidden},
            "args": [hidden],
            "envFrom": [{"secretFile": hidden}],
            "slurm": {"account": hidden},
        },
        status={
            "lastFailure": {"reason": "EngineCrashed", "message": "m", "logTail": [hidden]},
            "url": hidden,
        },
        labels={"team": hidden},
        annotations={"note": hidden},
        owned_fields={"llmctl": [hidden]},
    )
    dead = replica(
        "chat-1",
        of,
        phase="Ended",
        message=hidden,
        endpoint={"host": hidden, "port": 1},
        end={
            "reason": "EngineCrashed",
            "message": hidden,
            "at": AT(NOW - 5),
            "logTail": [hidden],
            "node": "n1",
        },
    )
    site = cluster(settings={"SlurmUser": hidden}, orphans=[hidden])
    text = json.dumps(shown([of], [dead], [site]))

    assert hidden not in text
    assert "secret/place" not in text
    assert "EngineCrashed" in text


@pytest.mark.parametrize(
    ("status", "following", "expected"),
    [
        pytest.param({}, None, None, id="nothing-is-known"),
        pytest.param({}, NextReplica(stage=Stage.PENDING), None, id="nobody-knows-when"),
        pytest.param(
            {"pending": {"estimatedStartTime": AT(NOW + 60)}},
            NextReplica(stage=Stage.PENDING, starts_at=NOW + 70, ready_at=NOW + 120),
            {"starts_at": NOW + 60, "source": "Slurm", "ready_at": NOW + 120},
            id="slurm-knows-best",
        ),
        pytest.param(
            {"pending": None},
            NextReplica(stage=Stage.PENDING, starts_at=NOW + 70),
            {"starts_at": NOW + 70, "source": "EarlierReplicas", "ready_at": None},
            id="earlier-replicas",
        ),
        pytest.param(
            {},
            NextReplica(stage=Stage.LOADING, ready_at=NOW + 20),
            {"starts_at": None, "source": None, "ready_at": NOW + 20},
            id="it-has-started",
        ),
        pytest.param(
            {"pending": {"estimatedStartTime": AT(NOW - 60)}},
            NextReplica(stage=Stage.PENDING, starts_at=NOW - 50, ready_at=NOW),
            None,
            id="it-should-have-come-before",
        ),
    ],
)
def test_when_the_next_replica_comes_and_who_says_so(
    status: dict[str, Any], following: NextReplica | None, expected: dict[str, Any] | None
) -> None:
    known = {"default/chat": following} if following is not None else {}
    (found,) = shown([deployment(status=status)], following=known)["deployments"]

    assert expected == found["next"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, (False, False, "", ""), id="not-looked-at-yet"),
        pytest.param(
            {"status": {"conditions": [condition("Ready", "True", "AllReplicasReady")]}},
            (True, False, "AllReplicasReady", ""),
            id="ready",
        ),
        pytest.param(
            {
                "status": {
                    "conditions": [
                        condition("Ready", "True", "AllReplicasReady"),
                        condition("Stalled", "True", "CrashLoopBackOff", "why"),
                    ]
                }
            },
            (False, True, "CrashLoopBackOff", "why"),
            id="stalled",
        ),
        pytest.param(
            {
                "deleted_at": NOW,
                "status": {
                    "conditions": [
                        condition("Stalled", "True", "CrashLoopBackOff", "why"),
                        condition("Ready", "False", "Deleting", "waiting for chat-1 to end"),
                    ]
                },
            },
            (False, False, "Deleting", "waiting for chat-1 to end"),
            id="going",
        ),
    ],
)
def test_the_word_that_says_most(fields: dict[str, Any], expected: tuple[bool, str, str]) -> None:
    (found,) = shown([deployment(**fields)])["deployments"]

    assert expected == (found["is_ready"], found["is_stalled"], found["reason"], found["message"])
    assert (0 if "deleted_at" in fields else 2) == found["desired"]


def test_clusters_say_whether_they_answer_and_when_they_were_looked_at() -> None:
    (away,) = shown(
        [],
        clusters=[cluster(conditions=[condition("Reachable", "False", "NotAnswering", "x" * 2000)])],
        seen_at={"hpc": NOW - 90.5},
    )["clusters"]
    (fresh,) = shown([], clusters=[cluster()])["clusters"]

    assert ("hpc", "slurm", "False", "NotAnswering", NOW - 91) == tuple(
        away[name] for name in ("name", "driver", "reachable", "reason", "seen_at")
    )
    assert "x" * 500 + "…" == away["message"]
    assert ("Unknown", None) == (fresh["reachable"], fresh["seen_at"])


def test_of_too_many_the_living_stay_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MOST", 3)
    one, *others = [deployment(name) for name in "abcd"]

    def ended(name: str, at: float) -> resources.Resource:
        return replica(name, one, phase="Ended", end={"reason": "Drained", "at": AT(at)})

    replicas = [
        ended("old", NOW - 900),
        ended("recent", NOW - 9),
        replica("alive-2", one, NOW - 1),
        ended("older", NOW - 990),
        replica("alive-1", one, NOW - 2),
        replica("of-the-last", others[-1], NOW),
    ]
    found = shown([*reversed(others), one], replicas)

    assert ["a", "b", "c"] == [each["name"] for each in found["deployments"]]
    assert ["alive-1", "alive-2"] == [each["name"] for each in found["deployments"][0]["replicas"]]
    assert {"clusters": 0, "deployments": 1, "replicas": 4} == found["left_out"]

    found = shown([one], replicas[:-1])
    assert ["recent", "alive-1", "alive-2"] == [each["name"] for each in found["deployments"][0]["replicas"]]
    assert 2 == found["left_out"]["replicas"]


def test_a_replica_whose_deployment_is_gone_meanwhile_is_not_shown() -> None:
    gone = deployment("gone")
    found = shown([deployment()], [replica("gone-1", gone)])

    assert [] == found["deployments"][0]["replicas"]


@pytest.mark.parametrize("at", ["garbage", "2026-11-28T10:00:00", 7])
def test_a_time_that_is_none_blanks_nothing_else(at: object) -> None:
    chat = deployment()
    found = shown([chat], [replica("chat-1", chat, phase="Gone", startedAt=at, end={"at": at})])

    (row,) = found["deployments"][0]["replicas"]
    assert ("Gone", None, None) == (row["phase"], row["started_at"], row["ended_at"])
