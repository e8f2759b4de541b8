"""Nodes that do not reach the controller at all: everything goes through files in the shared directory, and one signal."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tests.e2e.installation import UNREACHED, Installation, Replica, simulator


def channel(site: Installation) -> dict[str, Any]:
    rows = site.status("Cluster", "default").get("fences", [])
    return next((dict(row) for row in rows if row["name"] == "AgentChannel"), {})


def checks(text: str) -> dict[str, dict[str, str]]:
    found, _ = json.JSONDecoder().raw_decode(text)
    return {each["name"]: each for each in found["checks"]}


def heard(site: Installation, replicas: int) -> list[Replica]:
    """Files are written less often while nobody takes them: a replica that serves may be Suspect for a while after a controller's start."""

    def all_of_them() -> list[Replica] | None:
        found = site.ready("sim")
        return found if len(found) == replicas else None

    return site.wait(f"{replicas} to be heard in time", all_of_them, timeout=60)


def test_a_replica_whose_node_never_reaches_the_controller_lives_a_whole_life(
    install: Callable[..., Installation], engine_sif: Path
) -> None:
    """Ready, routed, drained without a failed request, replaced, and back to HTTPS when there is a way."""
    site = install(advertised=UNREACHED)
    wanted = simulator(replicas=2, image=engine_sif)
    before = checks(site.llmctl("preflight", "-o", "json", "-f", "-", text=yaml.safe_dump(wanted)))
    assert "WARN" == before["NodeToController"]["result"]
    assert "PASS" == before["GatewayToNode"]["result"], before["GatewayToNode"]

    site.apply(wanted)
    site.wait_ready("sim", 2)
    site.wait("the table to say so", lambda: channel(site).get("works") == "False", timeout=20)
    assert "inbox" in channel(site)["substitute"]
    doctor = checks(site.llmctl("doctor", "-o", "json"))
    assert "WARN" == doctor["Channel"]["result"]
    assert [] == [each for each in doctor.values() if each["result"] == "FAIL"]

    with site.flowing() as traffic:
        site.wait("both to answer", lambda: len(traffic.replicas) == 2, timeout=20)
        site.kill_controller()
        site.start_controller()
        site.wait_ready("sim", 2)
        names = {each.name for each in heard(site, 2)}
        site.scale("sim", 1)
        site.wait_ready("sim", 1)
        site.wait_settled(1)
        traffic.phase("one")
        site.wait("the last one to answer alone", lambda: len(traffic.replicas) == 1, timeout=20)
    (last,) = heard(site, 1)
    (gone,) = names - {last.name}
    record = json.loads((site.shared / "replicas" / gone / "exit.json").read_text())
    assert ("Drained", "ScaledDown") == (record["reason"], record["message"])

    os.kill(site.agent_of(last), signal.SIGKILL)
    site.wait(
        "another one to be ready",
        lambda: [each for each in site.ready("sim") if each.name != last.name],
        timeout=60,
    )
    site.advertised = ""
    site.end_controller()
    site.start_controller()
    site.wait("the agents to come back by HTTPS", lambda: channel(site).get("works") == "True", timeout=40)
    site.wait_ready("sim", 1)
    site.delete("sim")
    site.wait_gone("sim")
    site.assert_nothing_left()
    site.wait("the inbox to be empty", lambda: not list((site.shared / "inbox").iterdir()), timeout=20)
