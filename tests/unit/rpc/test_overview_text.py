"""The overview as JSON is what the overview is, whatever is kept of the text."""

import dataclasses
import json
from typing import Any

import pytest
from tests.unit.rpc import test_overview as samples

from llmop.domain import endpoint, times
from llmop.planner.autoscale import Load
from llmop.rpc import overview, overview_text

NOW = samples.NOW
CHAT = dataclasses.replace(samples.deployment("chat"), resource_version=1)
RANK = dataclasses.replace(samples.deployment("rank"), resource_version=2)
ONE = dataclasses.replace(samples.replica("one", CHAT, phase="Ready"), resource_version=3)
WORLD: dict[str, Any] = {
    "deployments": [CHAT, RANK],
    "replicas": [ONE],
    "clusters": [samples.cluster()],
    "loads": {},
    "following": {},
    "seen_at": {"hpc": NOW - 5},
    "now": NOW,
}
READY = times.to_rfc3339(NOW - 1)
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "status": {
        "deployments": [dataclasses.replace(CHAT, status={"readyReplicas": 1}, resource_version=9), RANK]
    },
    "one goes": {"deployments": [RANK], "replicas": []},
    "one comes": {"deployments": [CHAT, RANK, samples.deployment("zoo")]},
    "a replica's": {"replicas": [dataclasses.replace(ONE, status={"readyAt": READY}, resource_version=9)]},
    "no replica": {"replicas": []},
    "load": {
        "loads": {"default/chat": Load(at=NOW, in_flight=1, queued=0, tokens_per_s=None, is_whole=True)}
    },
    "a replica to come": {"following": {"default/rank": endpoint.NextReplica(ready_at=NOW + 60)}},
    "a look": {"seen_at": {"hpc": NOW}},
    "no cluster": {"clusters": []},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_after_every_change_the_text_is_what_is_there(change: dict[str, Any]) -> None:
    texts = overview_text.Texts()
    before = texts.text(**WORLD)
    after = texts.text(**(WORLD | change))
    back = texts.text(**WORLD)

    assert overview.overview(**WORLD) == json.loads(before.json) == json.loads(back.json)
    assert overview.overview(**(WORLD | change)) == json.loads(after.json)
    assert before.etag == back.etag
    assert (before.etag == after.etag) is (change == {})


def test_time_alone_is_no_change_until_something_is_over() -> None:
    texts = overview_text.Texts()
    world = WORLD | {"following": {"default/rank": endpoint.NextReplica(ready_at=NOW + 60)}}
    first = texts.text(**world)
    later = texts.text(**(world | {"now": NOW + 30}))
    over = texts.text(**(world | {"now": NOW + 90}))

    assert first.etag == later.etag != over.etag
    assert json.loads(later.json)["now"] == NOW + 30 == later.now
    assert later.json.startswith(overview_text.head(later.now))
    assert overview.overview(**(world | {"now": NOW + 90})) == json.loads(over.json)


def test_what_has_not_changed_is_not_made_again() -> None:
    texts = overview_text.Texts()
    texts.text(**WORLD)
    stale = dataclasses.replace(CHAT, status={"readyReplicas": 7})  # of the same version: nobody looks

    assert (
        0
        == json.loads(texts.text(**(WORLD | {"deployments": [stale, RANK]})).json)["deployments"][0]["ready"]
    )
