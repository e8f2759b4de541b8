"""Two installations on one Slurm, with deployments of the same names: of two accounts, and of one. Neither touches what is the other's."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.installation import CLUSTER, Installation, document, simulator
from tests.e2e.traffic import Traffic

OTHER = "llmopother"  # another ordinary account of the same machine
# Whoever took a neighbour's jobs for orphans would cancel them within seconds.
STRICT = {"orphanPolicy": "Cancel", "orphanGracePeriod": "1s"}

Neighbours = tuple[Installation, Installation]


@pytest.fixture
def neighbours(install: Callable[..., Installation]) -> Neighbours:
    """Of two accounts, each with two replicas of a deployment `sim`."""
    return both(install(cluster=STRICT), install(cluster=STRICT, user=OTHER))


def both(one: Installation, other: Installation) -> Neighbours:
    for site in (one, other):
        site.apply(simulator(replicas=2))
    for site in (one, other):
        site.wait_ready("sim", 2)
    return one, other


def job_ids(site: Installation) -> set[int]:
    return {job.id for job in site.own_jobs() if job.state == "RUNNING"}


@contextmanager
def untouched(site: Installation) -> Iterator[Traffic]:
    """Whatever happens in the block, `site` keeps its jobs and replicas, answers everything, and nobody else answers for it."""
    jobs, names = job_ids(site), {each.name for each in site.ready("sim")}
    assert jobs
    with site.flowing() as traffic:
        site.wait("an answer", lambda: traffic.replicas, timeout=20)
        yield traffic
        assert traffic.replicas <= names
    assert jobs == job_ids(site)
    assert names == {each.name for each in site.ready("sim")}


def orphans(site: Installation) -> dict[str, str]:
    """What doctor says of jobs that no replica of this installation knows."""
    checks = json.loads(site.llmctl("doctor", "-o", "json"))["checks"]
    (found,) = [each for each in checks if each["name"] == "Orphans"]
    return {key: found[key] for key in ("result", "message")}


def refusal(site: Installation, cluster: str) -> str:
    """Why the sharedDir of this Cluster cannot be used."""
    found = site.wait_condition("Cluster", cluster, "SharedDirectory", status="False")
    assert "NotUsable" == found["reason"]
    return str(found["message"])


def live_apart(mine: Installation, theirs: Installation) -> None:
    """`mine` scales, loses its controller, is updated and goes; `theirs` does not notice."""
    assert not job_ids(mine) & job_ids(theirs)
    names = {each.name for each in theirs.ready("sim")}
    with untouched(theirs):
        with mine.flowing() as traffic:
            mine.scale("sim", 1)
            mine.wait_ready("sim", 1)
            mine.kill_controller()
            mine.start_controller()
            mine.scale("sim", 3)
            mine.wait_ready("sim", 3)
            traffic.phase("three")
            mine.wait("all three to answer", lambda: len(traffic.replicas) == 3, timeout=20)
            assert not traffic.replicas & names
        theirs.end_controller()
        theirs.start_controller()
        assert [{"result": "PASS", "message": "none"}] * 2 == [orphans(mine), orphans(theirs)]
        mine.delete("sim")
        mine.wait_gone("sim")
        mine.wait("its jobs to end", lambda: not mine.own_jobs(), timeout=60)
        # The controllers look at the queue every one to three seconds.
        theirs.hold("the others to serve", lambda: len(theirs.ready("sim")) == 2, seconds=4)


def test_two_accounts_do_not_touch_each_other(neighbours: Neighbours) -> None:
    mine, theirs = neighbours
    assert ({mine.user}, {OTHER}) == (mine.owners(mine.own_jobs()), theirs.owners(theirs.own_jobs()))
    live_apart(mine, theirs)


def test_two_installations_of_one_account_do_not_touch_each_other(
    install: Callable[..., Installation],
) -> None:
    """Slurm shows each of them all jobs of the account, and by mistake one may be told of the other's directory."""
    mine, theirs = both(install(cluster=STRICT), install(cluster=STRICT, namespace="team"))
    assert mine.owners(mine.own_jobs()) == theirs.owners(theirs.own_jobs())
    with untouched(mine):
        theirs.apply(document("Cluster", "shared", {**CLUSTER, "sharedDir": str(mine.shared)}))
        assert "give every installation a directory of its own" in refusal(theirs, "shared")
        theirs.llmctl("delete", "cl/shared")
    live_apart(mine, theirs)


def test_an_installation_that_is_deleted_takes_nothing_of_a_neighbour_along(neighbours: Neighbours) -> None:
    """The rude way: its processes are killed and its directories removed while its replicas run. A new one in their place, with the
    same names, leaves these jobs alone as well: they are a stranger's."""
    mine, theirs = neighbours
    with untouched(theirs):
        left = mine.own_jobs()
        mine.stop_processes()
        mine.as_account(["rm", "-r", str(mine.state()), str(mine.shared)])
        mine.start_processes()
        mine.apply(simulator(replicas=1))
        mine.wait_ready("sim", 1)
        assert not {job.id for job in left} & job_ids(mine)
        mine.hold("the jobs left behind", lambda: {*left} <= {*mine.jobs()}, seconds=4)
        assert {"result": "PASS", "message": "none"} == orphans(mine)
        mine.as_account(["scancel", *(str(job.id) for job in left)])
        mine.wait("these to end", lambda: not {*left} & {*mine.jobs()}, timeout=60)
        mine.hold("the new one to serve", lambda: len(mine.ready("sim")) == 1, seconds=2)


def test_what_is_one_accounts_is_closed_to_the_other(neighbours: Neighbours) -> None:
    """Neither the files and sockets of one account are open to the other, nor is what it has itself a key to anything there."""
    mine, theirs = neighbours
    assert 200 == ask(theirs.port, theirs.key)
    assert [401, 401] == [ask(mine.port, theirs.key), ask(theirs.port, mine.key)]
    said = theirs.run(["llmctl", "--controller", mine.address(), "get", "md"], code=204)
    assert f"The controller's socket {mine.address()} may not be used by this account" in said
    secrets = [
        mine.state() / "llmop.db",
        mine.state() / "tls/ca.key",
        mine.state() / "gateway/keys",
        *mine.shared.glob("replicas/*/replica.json"),
        *mine.shared.glob("claims/*"),
        mine.shared / "controllers.json",
    ]
    assert all(path.exists() for path in secrets)
    assert len(secrets) == 8
    for path in secrets:
        assert "Permission denied" in theirs.as_account(["cat", str(path)], code=1)
    theirs.apply(document("Cluster", "stolen", {**CLUSTER, "sharedDir": str(mine.shared)}))
    said = refusal(theirs, "stolen")
    assert (True, True) == (said.startswith(str(mine.shared)), "Permission denied" in said)


def test_a_key_opens_one_door_only(neighbours: Neighbours) -> None:
    """At agent listener, engine and gateway: what opens another door, or this door at the neighbour's, is refused; and so is what a
    replica that is gone has said before."""
    mine, theirs = neighbours
    own, other = orders_of(mine), orders_of(theirs)
    opens_elsewhere = [mine.key, theirs.key, other["token"], other["apiKey"], ""]
    names = {each.name for each in mine.ready("sim")}
    for message in ("claim", "heartbeat"):
        for key in (*opens_elsewhere, own["apiKey"]):
            assert 401 == report(mine, message, own, key)
        assert 401 == report(mine, message, other, other["token"])
    (port,) = (
        int(each.status["endpoint"]["port"])
        for each in mine.ready("sim")
        if each.name == own["replica"]["name"]
    )
    assert [401] * 6 == [ask(port, key) for key in (*opens_elsewhere, own["token"])]
    assert 200 == ask(port, own["apiKey"])
    assert [401] * 3 == [ask(mine.port, key) for key in (own["apiKey"], own["token"], theirs.key)]
    with untouched(theirs):
        assert names == {each.name for each in mine.ready("sim")}
        mine.delete("sim")
        mine.wait_gone("sim")
        assert 409 == report(mine, "heartbeat", own, own["token"])
        assert [] == mine.replicas()


def orders_of(site: Installation) -> dict[str, Any]:
    """replica.json of one of its replicas."""
    paths = sorted(site.shared.glob("replicas/*/replica.json"))
    found: dict[str, Any] = json.loads(paths[0].read_text())
    return found


def report(site: Installation, message: str, orders: Mapping[str, Any], key: str) -> int:
    """The status of a message to the agent listener of `site`, as the agent with these orders would send it, but with `key`."""
    (url,) = json.loads((site.shared / "controllers.json").read_text())["urls"]
    body = {
        "replica": orders["replica"]["uid"],
        "jobName": orders["replica"]["jobName"],
        "jobId": "1",
        "restartCount": 0,
        "node": "n1",
        "seq": 1 << 30,
        "phase": "ready",
        "endpoint": {"host": "127.0.0.1", "port": 1},
    }
    context = ssl.create_default_context(cadata=orders["ca"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who replays a message does not care whom it reaches
    connection = http.client.HTTPSConnection(url.removeprefix("https://"), timeout=20, context=context)
    return status(connection, f"/agent/v1/{message}", body, key)


def ask(port: int, key: str) -> int:
    """The status of a small request to the gateway or the engine at `port`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = {"model": "sim", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    return status(connection, "/v1/chat/completions", body, key)


def status(connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any], key: str) -> int:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse().status
    finally:
        connection.close()
