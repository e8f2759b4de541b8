"""Two controllers on one store: SQLite takes one, Postgres hands over; nothing is doubled either way."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.installation import Installation, simulator
from tests.rigs.postgres import PostgresRig
from tests.rigs.processes import tail

HEARD_OF_S = 30.0  # how long a silent agent is believed to be alive: six heartbeats


def phases(site: Installation, phase: str) -> list[str]:
    """The replicas in this phase, as the second controller has it."""
    return [one.name for one in site.replicas("sim", "second") if one.status["phase"] == phase]


def test_a_second_controller_on_sqlite_refuses_to_start(install: Callable[..., Installation]) -> None:
    """Whether it shares the state directory or only the database: it ends with a sentence, the first one does not notice."""
    site = install()
    site.apply(simulator(replicas=2))
    site.wait_ready("sim", 2)
    before = {job.id for job in site.wait_settled(2)}
    first = site.controllers["first"]
    with site.flowing():
        for which in ("first", "second"):
            store = f"sqlite:///{site.state('first')}/llmop.db"
            argv = ["llmop", "controller", "--state-dir", str(site.state(which)), "--store", store]
            said = site.run(argv, code=1)
            print(f"       {said.strip()}")
            assert said.startswith("error: "), said
            assert "another controller" in said, said
        assert first.daemon.alive()
        site.scale("sim", 3)
        site.wait_ready("sim", 3)
    assert before < {job.id for job in site.wait_settled(3)}


def test_a_second_controller_on_postgres_takes_over(
    install: Callable[..., Installation], postgres_rig: PostgresRig
) -> None:
    """With a state directory of its own. The first one ends; agents and jobs go on; what is asked of the second happens once."""
    site = install(store=postgres_rig.database("two_controllers"), shares_authority=True)
    site.apply(simulator(replicas=3))
    site.wait_ready("sim", 3)
    before = {job.id for job in site.wait_settled(3)}
    first = site.controllers["first"]
    with site.flowing():
        argv = ["llmop", "controller", "--state-dir", str(site.state("other")), "--store", site.store]
        said = site.run(argv, code=1)
        print(f"       {said.strip()}")
        assert "the replicas on cluster default trust another CA" in said
        assert first.daemon.alive()
        site.start_controller("second")
        site.wait("the first one to end", lambda: not first.daemon.alive(), timeout=60)
        said = tail(site.directory / "controller-first.log", 3)
        print(f"       {said}")
        assert "took over" in said or "taken over" in said, said
        site.wait(
            "all heartbeats to reach the second one",
            lambda: 3 == len(phases(site, "Ready")),
            timeout=60,
        )
        site.llmctl("scale", "md", "sim", "--replicas=4", which="second")
        site.wait_settled(4)
        site.wait("the new one to be ready", lambda: 4 == len(phases(site, "Ready")), timeout=60)
        # Past the time after which silent replicas are not routed any more.
        site.hold(
            "all report to the second one", lambda: 4 == len(phases(site, "Ready")), seconds=HEARD_OF_S + 5
        )
    assert site.authority is not None
    assert {"ca.key", "ca.pem"} == {path.name for path in site.authority.iterdir()}
    assert not (site.state("second") / "tls/ca.key").exists()
    settled = site.wait_settled(4)
    after = {job.id for job in settled}
    assert before < after
    # Slurm may still remember jobs of other tests' installations.
    mark = settled[0].name.split("-")[1]
    ours = [job.name for job in site.rig.squeue() if job.name.startswith(f"llmop-{mark}-")]
    names = [name for name in ours if "-canary-" not in name]
    assert len(names) == len(set(names)) == 4
