"""Database, claims, logs and messages on a file system that is not a local disk: a real FUSE mount, seen by controller and jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.e2e.installation import UNREACHED, Installation, simulator


def test_an_installation_lives_on_fuse_alone(install: Callable[..., Installation], engine_sif: Path) -> None:
    """Not even the agents' reports have another way. The controller is killed in between."""
    site = install(fuse=True, advertised=UNREACHED)
    log = site.directory / "controller-first.log"
    assert "lies on a shared file system (fuse" in log.read_text()
    state = {path.name for path in site.state().iterdir()}
    assert {"llmop.db", "llmop.db.lease"} <= state
    assert not {"llmop.db-wal", "llmop.db-shm"} & state
    site.apply(simulator(replicas=2, image=engine_sif))
    site.wait_ready("sim", 2)
    with site.flowing() as traffic:
        site.wait("both to answer", lambda: len(traffic.replicas) == 2, timeout=20)
        site.kill_controller()
        site.start_controller()
        site.scale("sim", 1)
        site.wait_ready("sim", 1)
        site.wait_settled(1)
        traffic.phase("one")
        site.wait("the last one to answer alone", lambda: len(traffic.replicas) == 1, timeout=20)
    site.delete("sim")
    site.wait_gone("sim")
    site.assert_nothing_left()
