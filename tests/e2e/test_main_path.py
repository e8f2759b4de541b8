"""What llmop is for, once through, on a real Slurm with real containers, as an ordinary account, on either store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.installation import Installation, simulator

GONE = frozenset({404, 503})


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> str:
    """The address of a database; "" is SQLite in the state directory."""
    if request.param == "sqlite":
        return ""
    return str(request.getfixturevalue("postgres_rig").database("main_path"))


def test_a_deployment_lives_through_every_change_without_a_failed_request(
    install: Callable[..., Installation], engine_sif: Path, store: str
) -> None:
    """Apply, scale up, change, scale down: all answered. Delete: refused as gone, and nothing is left."""
    site = install(store=store)
    site.apply(simulator(replicas=3, image=engine_sif))
    site.wait_ready("sim", 3)
    assert site.rig.uid != 0
    assert {site.rig.user} == site.owners(site.wait_settled(3))
    with site.flowing() as traffic:
        traffic.phase("three")
        site.wait("all three to answer", lambda: len(traffic.replicas) == 3, timeout=20)
        before = {each.name for each in site.replicas("sim")}
        site.scale("sim", 5)
        site.wait_ready("sim", 5)
        traffic.phase("five")
        site.wait("all five to answer", lambda: len(traffic.replicas) == 5, timeout=20)
        site.apply(simulator(replicas=None, image=engine_sif, args=["--answer-tokens=32"]))
        site.wait_ready("sim", 5, timeout=180)
        now = site.ready("sim")
        assert not before & {each.name for each in now}
        assert {2} == {each.spec["revision"] for each in now}
        site.scale("sim", 1)
        site.wait_ready("sim", 1)
        site.wait_settled(1)
        traffic.phase("one")
        site.wait("the last one to answer alone", lambda: len(traffic.replicas) == 1, timeout=20)
        traffic.phase("deleting", allowed=GONE)
        site.delete("sim")
        site.wait_gone("sim")
        traffic.phase("deleted", allowed=GONE)
    site.assert_nothing_left()
